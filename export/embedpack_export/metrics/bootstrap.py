"""Paired, stratified bootstrap (Efron and Tibshirani 1993, chapter 13: percentile intervals).

A resample draws the queries of every set with replacement; the sets are the strata. Models that are compared are
averaged over the same draws. A figure over several sets is the mean of their means, so every set has the same weight.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from embedpack_export.arrays import Float64

RESAMPLES = 10_000
# Resamples drawn together: bounds the memory.
CHUNK = 250
QUANTILES = (0.025, 0.975)


class Interval(NamedTuple):
    """Bounds of a 95 % interval."""

    low: float
    high: float


def set_generator(name: str, seed: int) -> np.random.Generator:
    """Random generator for the draws of one set, independent of those of other sets."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def resampled_means(values: Float64, generator: np.random.Generator, resamples: int = RESAMPLES) -> Float64:
    """Means over resamples of the queries of one set, all models on the same draws.

    `values` has the figures of each query, [queries, models]; the result is float64 [resamples, models].
    """
    count, means = len(values), []
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        draws = generator.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        # A product with the number of times that each query was drawn is faster than to gather its figures.
        times = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        means.append(times @ values)
    return np.concatenate(means) / count


def interval(resampled: Float64) -> Interval:
    """The 95 % interval between the quantiles of resampled figures, [resamples]."""
    low, high = np.quantile(resampled, QUANTILES)
    return Interval(float(low), float(high))
