"""How far to move the size of an activation's channels into the weights that read it, chosen by the error it leaves.

Both roundings are to a grid whose step is the largest value of a row (of activations, of weights) over 127. A rounding
error is uniform within half a step, so its variance is step^2 / 12, and that of a product is

    activations  mean over rows r of step_r^2 / 12 * sum_k (d_k^2 * sum_n w_nk^2)
    weights      sum over outputs n of step_n^2 / 12 * sum_k (variance_k / d_k^2)

for activations divided by d and weights multiplied by d. d_k = reach_k^a / max_n |w_nk|^(1 - a), as SmoothQuant has it
(Xiao et al. 2023, arXiv 2211.10438, eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack_export.lora import Float32
from embedpack_export.statistics import SiteStatistics
from embedpack_export.weights import Matrix

# Candidates for a: 0 moves nothing, 1 moves all.
STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
# Part of the weights' error that rounding to the covariance leaves.
ROUNDED_WELL = 0.3


def choose_divisors(
    seen: SiteStatistics, shift: Float32, weights: Sequence[Matrix], groups: tuple[int, int, int] | None
) -> Float32:
    """Divisor of each channel [k], geometric mean 1.

    Args:
        seen: statistics of the activation.
        shift: taken off the activation before it is divided, [k].
        weights: of all layers that read it, [out, k] each.
        groups: (groups, members, size) of the channels where the members of a group must share their divisors.
    """
    activations = np.maximum(np.maximum(seen.high - shift, shift - seen.low), np.float32(1e-4))
    reach = np.maximum(np.max([_column_reach(matrix) for matrix in weights], axis=0), np.float32(1e-5))
    if groups is not None:
        activations, reach = _largest_of_members(activations, groups), _largest_of_members(reach, groups)
    candidates = [_divisors(activations, reach, strength) for strength in STRENGTHS]
    errors = _errors(seen, shift, weights, candidates)
    return candidates[int(np.argmin(errors))]


def _divisors(activations: Float32, reach: Float32, strength: float) -> Float32:
    scale = activations**strength / reach ** (1 - strength)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _errors(seen: SiteStatistics, shift: Float32, weights: Sequence[Matrix], candidates: list[Float32]) -> Float32:
    """Variance that rounding adds to the outputs, relative to nothing in particular; one for each candidate."""
    squares = np.sum([_column_squares(matrix) for matrix in weights], axis=0)
    weight_steps = np.sum([_row_steps(matrix, candidates) for matrix in weights], axis=0)
    errors = []
    for divisors, steps in zip(candidates, weight_steps, strict=True):
        largest = np.abs((seen.sample - shift) / divisors).max(axis=1)
        activations = np.square(largest).mean() * (squares * np.square(divisors)).sum()
        rounding = steps * (seen.variance / np.square(divisors)).sum()
        errors.append(activations + ROUNDED_WELL * rounding)
    return np.array(errors, np.float32)


def _column_reach(matrix: Matrix) -> Float32:
    return np.max([np.abs(chunk).max(0) for chunk in matrix.chunks()], axis=0).astype(np.float32)


def _column_squares(matrix: Matrix) -> Float32:
    return np.sum([np.square(chunk).sum(0) for chunk in matrix.chunks()], axis=0).astype(np.float32)


def _row_steps(matrix: Matrix, candidates: list[Float32]) -> Float32:
    """Sum over the rows of (127 * step)^2 for each candidate."""
    sums = np.zeros(len(candidates), np.float32)
    for chunk in matrix.chunks():
        size = np.abs(chunk)
        for index, divisors in enumerate(candidates):
            sums[index] += np.square((size * divisors).max(1)).sum()
    return sums


def _largest_of_members(values: Float32, groups: tuple[int, int, int]) -> Float32:
    largest = values.reshape(groups).max(axis=1, keepdims=True)
    return np.broadcast_to(largest, groups).reshape(-1)
