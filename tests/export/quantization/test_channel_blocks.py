"""Blocks of channels that share a scale: all channels once, whole numbers of grains, the best allowed partition."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from embedpack_export.quantization.channel_blocks import (
    BLOCK_MULTIPLE,
    BOUNDS,
    MAX_BLOCKS,
    MAX_ERROR_RATIO,
    ErrorTerms,
    best_partition,
)


def sizes(channels: int, *, centered: bool = True, heavy: int = 0) -> ErrorTerms:
    """Random activations and weights; the first channels are a hundred times as large."""
    rng = np.random.default_rng(channels + heavy)
    tokens = rng.standard_normal((50, channels)).astype(np.float32)
    tokens[:, :heavy] *= 100
    return ErrorTerms(
        tokens=tokens,
        centered=centered,
        weights=np.abs(rng.standard_normal((30, channels))).astype(np.float32),
        gain=rng.random(channels).astype(np.float32),
        variance=1e-3 * rng.random(channels).astype(np.float32),
    )


def error(given: ErrorTerms, block: npt.NDArray[np.intp]) -> float:
    """The definition, in float64."""
    tokens = given.tokens[:, block].astype(np.float64)
    max_abs = np.ptp(tokens, axis=1) / 2 if given.centered else np.abs(tokens).max(axis=1)
    steps = np.square(given.weights[:, block].astype(np.float64).max(axis=1)).sum()
    return float(np.square(max_abs).mean() * given.gain[block].sum() + steps * given.variance[block].sum())


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("channels", [5, 16, 40, 1536])
def test_every_channel_is_in_one_block_and_the_error_is_that_of_the_blocks(channels: int, centered: bool) -> None:
    given = sizes(channels, centered=centered, heavy=3)
    blocks, found = best_partition(given, MAX_BLOCKS)
    assert 1 <= len(blocks) <= MAX_BLOCKS
    assert sorted(np.concatenate(blocks)) == list(range(channels))
    assert all(len(block) % BLOCK_MULTIPLE == 0 for block in blocks[:-1])
    assert found == pytest.approx(sum(error(given, block) for block in blocks), rel=1e-4)


def test_few_large_channels_are_kept_from_the_others() -> None:
    given = sizes(1536, heavy=16)
    blocks, found = best_partition(given, MAX_BLOCKS)
    assert set(blocks[0]) == set(range(16))
    assert found < 0.1 * best_partition(given, 1)[1]


def test_no_other_bounds_are_better_and_one_more_block_would_not_be_worth_it() -> None:
    given = sizes(640, heavy=30)
    order = np.argsort(-np.quantile(np.abs(given.tokens), 0.99, axis=0), kind="stable")
    inner = sorted({640 * bound // 64 // BLOCK_MULTIPLE * BLOCK_MULTIPLE for bound in BOUNDS} - {0})

    def lowest(blocks: int) -> float:
        choices = combinations(inner, blocks - 1)
        return min(sum(error(given, block) for block in np.split(order, bounds)) for bounds in choices)

    blocks, found = best_partition(given, MAX_BLOCKS)
    assert 1 < len(blocks) < MAX_BLOCKS
    assert found == pytest.approx(lowest(len(blocks)), rel=1e-4)
    assert lowest(len(blocks) + 1) > MAX_ERROR_RATIO * found


def test_channels_that_are_alike_stay_together() -> None:
    given = sizes(256)
    same = replace(given, tokens=np.sign(given.tokens), weights=np.ones_like(given.weights))
    blocks, _ = best_partition(same, MAX_BLOCKS)
    assert len(blocks) == 1


def test_one_block_keeps_the_order() -> None:
    (block,), found = best_partition(sizes(32, heavy=4), 1)
    np.testing.assert_array_equal(block, np.arange(32))
    assert found == pytest.approx(error(sizes(32, heavy=4), block), rel=1e-4)
