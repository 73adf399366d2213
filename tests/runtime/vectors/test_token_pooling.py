"""Token pooling: Ward's groups between special tokens, unit length, errors instead of lost rows."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.vectors.token_pooling import MAX_ROWS, MIN_ROWS, pool_rows, ward_groups

Bools = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float32]
MASKS = st.lists(st.booleans(), min_size=1, max_size=120).map(np.array)


def vectors(rows: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng((rows, seed)).standard_normal((rows, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def plain(rows: int) -> Bools:
    return np.zeros(rows, np.bool_)


def spread(rows: Vectors) -> float:
    """Squared distances to the mean."""
    exact = rows.astype(np.float64)
    return float(((exact - exact.mean(axis=0)) ** 2).sum())


def by_definition(rows: Vectors, count: int) -> npt.NDArray[np.intp]:
    """Merge the two groups whose merger adds least to the spread, computed anew from the rows each time."""
    groups = [[row] for row in range(len(rows))]
    while len(groups) > count:

        def added(pair: tuple[int, int]) -> float:
            left, right = groups[pair[0]], groups[pair[1]]
            return spread(rows[left + right]) - spread(rows[left]) - spread(rows[right])

        left, right = min(combinations(range(len(groups)), 2), key=added)
        groups[left] += groups.pop(right)
    found = np.empty(len(rows), np.intp)
    for group in groups:
        found[group] = min(group)
    return found


@given(rows=st.integers(1, 24), seed=st.integers(0, 5), data=st.data())
def test_groups_are_those_of_the_definition(rows: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, rows))
    drawn = vectors(rows, seed)
    np.testing.assert_array_equal(ward_groups(drawn, count), by_definition(drawn, count))


def test_equal_rows_are_merged_first() -> None:
    rows = np.repeat(vectors(4), [3, 1, 2, 5], axis=0)[::-1].copy()
    assert ward_groups(rows, 4).tolist() == [0] * 5 + [5] * 2 + [7] + [8] * 3


@given(alone=MASKS, factor=st.integers(2, 9))
def test_special_rows_stay_and_the_others_are_pooled_between_them(alone: Bools, factor: int) -> None:
    rows = vectors(len(alone))
    edges = [*np.flatnonzero(np.diff(alone, prepend=~alone[:1])).tolist(), len(alone)]
    expected = []
    for start, stop in pairwise(edges):
        stretch = rows[start:stop]
        if not alone[start]:
            count = max(-(-len(stretch) // factor), min(len(stretch), MIN_ROWS))
            groups = ward_groups(stretch, count)
            means = [stretch[groups == first].astype(np.float64).mean(axis=0) for first in np.unique(groups)]
            stretch = np.array([mean / np.linalg.norm(mean) for mean in means], np.float32)
        expected.append(stretch)
    np.testing.assert_allclose(pool_rows(rows, alone, factor), np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4, 9])
def test_long_texts_lose_all_but_one_row_in_so_many(factor: int) -> None:
    assert len(pool_rows(vectors(720), plain(720), factor)) == 720 // factor
    assert len(pool_rows(vectors(721), plain(721), factor)) == -(-721 // factor)


def test_long_stretches_are_pooled_part_by_part() -> None:
    rows, half = vectors(2 * MAX_ROWS), plain(MAX_ROWS)
    parts = [pool_rows(rows[:MAX_ROWS], half, 4), pool_rows(rows[MAX_ROWS:], half, 4)]
    np.testing.assert_array_equal(pool_rows(rows, plain(len(rows)), 4), np.concatenate(parts))


def test_short_texts_keep_their_rows() -> None:
    rows = vectors(MIN_ROWS)
    np.testing.assert_allclose(pool_rows(rows, plain(MIN_ROWS), 4), rows, atol=1e-6)
    assert len(pool_rows(vectors(MIN_ROWS + 5), plain(MIN_ROWS + 5), 4)) == MIN_ROWS


def test_a_factor_of_1_changes_nothing() -> None:
    rows = vectors(40)
    assert pool_rows(rows, plain(40), 1) is rows
