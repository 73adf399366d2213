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
        covariance: float32 [k, k].
    """

    mean: Float32
    low: Float32
    high: Float32
    covariance: Float32

    def reach(self, center: Float32) -> Float32:
        """Largest distance of each channel from a center [k]."""
        return np.maximum(self.high - center, center - self.low)


class StatisticsSum:
    """Collects the statistics of one activation, batch by batch."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: npt.NDArray[np.float64] | None = None
        self._products: npt.NDArray[np.float64] | None = None
        self._low: Float32 | None = None
        self._high: Float32 | None = None

    def add(self, tokens: Float32) -> None:
        """Count tokens, float32 [n, k]."""
        products = (tokens.T @ tokens).astype(np.float64)
        total, low, high = tokens.sum(0, dtype=np.float64), tokens.min(0), tokens.max(0)
        if self._sum is None or self._products is None or self._low is None or self._high is None:
            self._sum, self._products, self._low, self._high = total, products, low, high
        else:
            self._sum += total
            self._products += products
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._count += len(tokens)

    def result(self) -> SiteStatistics:
        """The statistics of all tokens so far; there must be some."""
        assert self._sum is not None and self._products is not None and self._low is not None and self._high is not None
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        return SiteStatistics(mean.astype(np.float32), self._low, self._high, covariance.astype(np.float32))
