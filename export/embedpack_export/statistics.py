"""What calibration texts look like inside a model: statistics of the activations that linear layers read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack_export.lora import Float32


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics over all real tokens of one activation with k channels.

    Attributes:
        mean, low, high: of each channel, float32 [k].
        covariance: float64 [k, k], on disk in a calibration: that of all sites together would not fit the memory.
    """

    mean: Float32
    low: Float32
    high: Float32
    covariance: npt.NDArray[np.float64]

    @property
    def center(self) -> Float32:
        """Middle of the range of each channel [k]."""
        return (self.low + self.high) * np.float32(0.5)

    @property
    def reach(self) -> Float32:
        """Largest distance of each channel from its center [k]."""
        return (self.high - self.low) * np.float32(0.5)


class StatisticsSum:
    """Collects the statistics of one activation of k channels, batch by batch."""

    def __init__(self, channels: int, products: npt.NDArray[np.float64] | None = None) -> None:
        """Begin; `products` [k, k], zero, is where the sum of products is kept and the covariance will be."""
        self._count = 0
        # Sums are taken around the mean of the first tokens: far from zero, float32 products would lose the variance.
        self._origin: Float32 | None = None
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels)) if products is None else products
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)

    def add(self, tokens: Float32) -> None:
        """Count tokens, float32 [n, k]."""
        if self._origin is None:
            self._origin = tokens.mean(0)
        moved = tokens - self._origin
        self._count += len(tokens)
        self._sum += moved.sum(0, dtype=np.float64)
        self._products += moved.T @ moved
        self._low = np.minimum(self._low, tokens.min(0))
        self._high = np.maximum(self._high, tokens.max(0))

    def result(self) -> SiteStatistics:
        """The statistics of all tokens so far; there must be some."""
        assert self._origin is not None
        moved = self._sum / self._count
        self._products /= self._count
        for row, value in zip(self._products, moved, strict=True):
            row -= value * moved
        mean = moved + self._origin
        return SiteStatistics(mean.astype(np.float32), self._low, self._high, self._products)
