"""Rounding of weights by GPTQ, for the covariance of the activations that they are multiplied by.

GPTQ (Frantar et al. 2022, arXiv 2210.17323, Algorithm 1) rounds one column (input channel) after the other and spreads
the error of each over the columns that are not rounded yet, as far as the activations are correlated. The order is that
of falling variance. Rows are independent, so a matrix can be streamed. Errors are not spread between different blocks
of channels (`embedpack_export.quantization.covariances.covariance_blocks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64

# "rtn": round to nearest. "gptq": this module. "gptaq": gptq of weights with error compensation.
RoundingMethod: TypeAlias = Literal["rtn", "gptq", "gptaq"]

# Part of the mean variance added to each channel: without it, channels that hardly vary in the calibration would take
# up arbitrary errors.
ROUNDING_DAMPING = 0.01
# Columns whose errors are spread over the later columns in one product.
PRODUCT_COLUMNS = 64


@dataclass(frozen=True)
class Rounding:
    """GPTQ for one block of channels of an activation."""

    order: npt.NDArray[np.intp]  # columns in the order in which they are rounded, int [k]
    factor: Float32  # upper Cholesky factor of the inverse covariance of the ordered columns, float32 [k, k]

    @classmethod
    def for_covariance(cls, covariance: npt.NDArray[np.floating[Any]], damping: float = ROUNDING_DAMPING) -> Rounding:
        """Prepare GPTQ for activations of this covariance [k, k]; `damping` as in ROUNDING_DAMPING."""
        order = np.argsort(-covariance.diagonal(), kind="stable")
        ordered = covariance[order][:, order].astype(np.float64)
        variance = max(float(ordered.diagonal().mean()), 1e-12)
        ordered[np.diag_indices_from(ordered)] += damping * variance
        return cls(order, _inverse_factor(ordered).astype(np.float32))

    def round(self, weights: Float32, scales: Float32, low: int, high: int) -> Float32:
        """Round weights float32 [n, k] to integers of low..high, float32 [n, k], under scales [n, k] or [n, 1]."""
        left = weights[:, self.order].T.copy()
        step = np.broadcast_to(scales, weights.shape)[:, self.order].T
        result = np.empty_like(left)
        for start in range(0, len(left), PRODUCT_COLUMNS):
            stop = min(start + PRODUCT_COLUMNS, len(left))
            errors = np.empty((stop - start, left.shape[1]), np.float32)
            for column in range(start, stop):
                result[column] = np.clip(np.rint(left[column] / step[column]), low, high)
                error = (left[column] - result[column] * step[column]) / self.factor[column, column]
                errors[column - start] = error
                left[column + 1 : stop] -= np.outer(self.factor[column, column + 1 : stop], error)
            left[stop:] -= self.factor[start:stop, stop:].T @ errors
        integers = np.empty_like(weights)
        integers[:, self.order] = result.T
        return integers

    def regression(self, products: Float32) -> Float32:
        """Multiply `products` float32 [n, k] by the inverse of the damped covariance."""
        solved = np.empty_like(products)
        solved[:, self.order] = (products[:, self.order] @ self.factor.T) @ self.factor
        return solved


def _inverse_factor(matrix: Float64) -> Float64:
    """Upper factor U of the inverse, U.T @ U, of a positive definite matrix, without inverting the matrix itself.

    With all axes reversed, the lower Cholesky factor L of the matrix becomes an upper R with R @ R.T; U is its inverse.
    """
    lower: Float64 = np.linalg.cholesky(matrix[::-1, ::-1]).astype(np.float64)
    return _inverse_of_lower(lower)[::-1, ::-1]


def _inverse_of_lower(lower: Float64) -> Float64:
    """Invert a lower triangular matrix by halves: nearly all of the work is then in products, which are fast."""
    size = len(lower)
    if size <= PRODUCT_COLUMNS:
        return np.asarray(np.linalg.inv(lower), np.float64)
    half = size // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = first = _inverse_of_lower(lower[:half, :half])
    inverse[half:, half:] = second = _inverse_of_lower(lower[half:, half:])
    inverse[half:, :half] = -second @ (lower[half:, :half] @ first)
    return inverse


def roundings(covariance: Sequence[Float64], divisors: Float32) -> list[Rounding]:
    """Prepare GPTQ for each block of channels, all channels divided by `divisors` [k]."""
    blocks, start = [], 0
    for block in covariance:
        part = divisors[start : start + len(block)]
        blocks.append(Rounding.for_covariance(block / np.outer(part, part)))
        start += len(block)
    return blocks


def regression(blocks: Sequence[Rounding], products: Float32) -> Float32:
    """Multiply `products` float32 [n, k] by the inverse covariance of each block of columns."""
    result = np.empty_like(products)
    start = 0
    for block in blocks:
        columns = slice(start, start + len(block.order))
        result[:, columns] = block.regression(products[:, columns])
        start = columns.stop
    return result


def round_columns(blocks: Sequence[Rounding], weights: Float32, scales: Float32, low: int, high: int) -> Float32:
    """Round weights float32 [n, k] block of columns by block, as `Rounding.round` does."""
    scales = np.broadcast_to(scales, weights.shape)
    integers = np.empty_like(weights)
    start = 0
    for block in blocks:
        columns = slice(start, start + len(block.order))
        integers[:, columns] = block.round(weights[:, columns], scales[:, columns], low, high)
        start = columns.stop
    return integers
