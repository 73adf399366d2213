"""Pooled rows: windows of equal size between special tokens, unit length, and nothing lost silently."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.pooling import FEWEST, pool_rows, window_starts

Bools = npt.NDArray[np.bool_]
MASKS = st.lists(st.booleans(), min_size=1, max_size=120).map(np.array)


def vectors(rows: int) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def plain(rows: int) -> Bools:
    return np.zeros(rows, np.bool_)


@given(alone=MASKS, factor=st.integers(1, 9))
def test_windows_cover_all_rows_and_special_ones_stay_alone(alone: Bools, factor: int) -> None:
    starts = window_starts(alone, factor)
    assert starts[0] == 0
    sizes = np.diff([*starts, len(alone)])
    assert sizes.min() >= 1
    assert sizes.max() <= factor
    for start, size in zip(starts, sizes, strict=True):
        assert size == 1 or not alone[start : start + size].any()


@given(alone=MASKS, factor=st.integers(2, 9))
def test_a_pooled_row_is_the_direction_of_the_mean_of_its_window(alone: Bools, factor: int) -> None:
    rows = vectors(len(alone))
    starts = window_starts(alone, factor)
    pooled = pool_rows(rows, alone, factor)
    for window, row in zip(np.split(rows.astype(np.float64), starts[1:]), pooled, strict=True):
        mean = window.mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4, 9])
def test_long_texts_lose_all_but_one_row_in_so_many(factor: int) -> None:
    assert len(pool_rows(vectors(720), plain(720), factor)) == 720 // factor
    assert len(pool_rows(vectors(721), plain(721), factor)) == -(-721 // factor)


def test_windows_of_one_stretch_have_nearly_one_size() -> None:
    sizes = np.diff([*window_starts(plain(101), 4), 101])
    assert set(sizes.tolist()) == {3, 4}


def test_short_texts_keep_their_rows() -> None:
    rows = vectors(FEWEST)
    np.testing.assert_allclose(pool_rows(rows, plain(FEWEST), 4), rows, atol=1e-6)
    assert len(pool_rows(vectors(FEWEST + 5), plain(FEWEST + 5), 4)) == FEWEST


def test_a_factor_of_1_changes_nothing() -> None:
    rows = vectors(40)
    assert pool_rows(rows, plain(40), 1) is rows
