"""Paired stratified bootstrap: queries are drawn anew within each set, the same ones for both sides of a difference.

A figure over several sets is the mean of the sets' means, so that large sets do not drown small ones. Its spread comes
from 10,000 resamples: in each, every set is drawn anew by itself (the sets are the strata) and both models are judged
on the same draws.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedpack_export.metrics.rankings import Float64

RESAMPLES = 10_000
# Resamples drawn together: bounds the memory.
CHUNK = 250
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Draws:
    """How the queries of one set are drawn: the same for every model that is judged on it.

    Attributes:
        name: of the set; sets are drawn independently of each other.
        count: its queries.
        seed: of all draws.
        resamples: how often.
    """

    name: str
    count: int
    seed: int
    resamples: int = RESAMPLES

    def means(self, values: Float64) -> Float64:
        """Means of the resamples of each column of [count, k]: [resamples, k]."""
        return np.concatenate([counts @ values for counts in self._counts()]) / self.count

    def _counts(self) -> Iterator[Float64]:
        """How often each query is drawn, [up to CHUNK, count] at a time."""
        rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode())])
        for start in range(0, self.resamples, CHUNK):
            rows = min(CHUNK, self.resamples - start)
            drawn = rng.integers(self.count, size=(rows, self.count)) + np.arange(rows)[:, None] * self.count
            yield np.bincount(drawn.ravel(), minlength=rows * self.count).reshape(rows, self.count).astype(np.float64)


def interval(resampled: Float64) -> tuple[float, float]:
    """The middle 95 % of resampled figures, [resamples]."""
    low, high = np.quantile(resampled, QUANTILES)
    return float(low), float(high)
