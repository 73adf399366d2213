"""Covariances of activations: sums of products, batch by batch, for each block of channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64

# Channels of one covariance. That of all channels of a wide layer would neither fit into memory nor be inverted in
# reasonable time.
COVARIANCE_CHANNELS = 2048


def covariance_blocks(channels: int) -> Iterator[slice]:
    """Blocks of channels with a covariance each."""
    for start in range(0, channels, COVARIANCE_CHANNELS):
        yield slice(start, min(start + COVARIANCE_CHANNELS, channels))


class CovarianceSum:
    """Sums of products of two activations of k channels, for each block of channels."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._products = [np.zeros((block.stop - block.start,) * 2) for block in covariance_blocks(channels)]

    def add(self, left: Float32, right: Float32) -> None:
        """Add rows, float32 [n, k], each scaled by the square root of its weight."""
        for products, block in zip(self._products, covariance_blocks(self._channels), strict=True):
            products += left[:, block].T @ right[:, block]

    def result(self, weight: float, left: Float64, right: Float64) -> tuple[Float64, ...]:
        """Covariance of each block, float64 [b, b], from the sum of the weights and the weighted means [k].

        The sums are used up.
        """
        for products, block in zip(self._products, covariance_blocks(self._channels), strict=True):
            center_products(products, weight, left[block], right[block])
        return tuple(self._products)


def center_products(products: Float64 | Float32, weight: float, left: Float64, right: Float64) -> None:
    """Turn weighted sums of products into a covariance, in place and row by row: large ones have no room for a copy."""
    products /= weight
    for row, value in zip(products, left, strict=True):
        row -= value * right
