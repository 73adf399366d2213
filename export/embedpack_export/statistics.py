"""What calibration texts look like inside a model: statistics of the activations that linear layers read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

    @property
    def center(self) -> Float32:
        """Middle of the range of each channel [k]."""
        return (self.low + self.high) / 2

    @property
    def reach(self) -> Float32:
        """Largest distance of each channel from its center [k]."""
        return (self.high - self.low) / 2


class StatisticsSum:
    """Collects the statistics of one activation of k channels, batch by batch."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)

    def add(self, tokens: Float32) -> None:
        """Count tokens, float32 [n, k]."""
        self._count += len(tokens)
        self._sum += tokens.sum(0, dtype=np.float64)
        self._products += tokens.T @ tokens
        self._low = np.minimum(self._low, tokens.min(0))
        self._high = np.maximum(self._high, tokens.max(0))

    def result(self) -> SiteStatistics:
        """The statistics of all tokens so far; there must be some."""
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        return SiteStatistics(mean.astype(np.float32), self._low, self._high, covariance.astype(np.float32))
