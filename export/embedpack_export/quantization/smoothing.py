"""How far to move the size of an activation's channels into the weights that read it, chosen by the error it leaves.

Both roundings are to a grid whose step is the largest value of a row (of activations, of weights) over 127. A rounding
error is uniform within half a step, so its variance is step^2 / 12. For activations divided by d and weights multiplied
by d, what reaches the outputs of a token r is, up to the factor 1 / 12,

    from its activations  step_r^2 * sum_k (d_k^2 * sum_n w_nk^2)
    from the weights      sum_n step_n^2 * sum_k (x_rk^2 / d_k^2)

where channels that may be made in any order can fall into blocks with steps of their own (`best_partition`).

A step that all rows share spares the passes that look for each row's largest value, and costs accuracy: it must reach
as far as any value does. Where a norm makes the activation, values hardly reach further in one row than in another once
their channels are scaled for it.

Each token counts relative to the size of its own outputs: norms bring all tokens to one size, so the few that carry
massive activations (Sun et al. 2024, arXiv 2402.17762) must not decide for the rest.
d_k = max_abs_k^a / max_n |w_nk|^(1 - a), as SmoothQuant has it (Xiao et al. 2023, arXiv 2211.10438, eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack_export.arrays import Float32, Matrix, row_chunks
from embedpack_export.quantization.channel_blocks import MAX_BLOCKS, Sizes, best_partition, shared_step_error
from embedpack_export.quantization.channel_layout import ChannelLayout
from embedpack_export.quantization.statistics import SiteStatistics

# Candidates for a: 0 moves nothing, 1 moves all.
STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Part of the weights' error that rounding to the covariance leaves.
ROUNDED_WELL = 0.3
# Rows share a step where the error is at most so many times what steps of their own leave.
SHARED_STEP_COST = 2.0
# Fewer tokens do not show how far values reach.
MIN_TOKENS = 2000
# How much further than the calibration saw a shared step reaches. Values beyond it are cut off.
HEADROOM = np.float32(1.1)
# Outputs below this are nothing, and no measure of an error.
TINY = 1e-12
# Rows of the weights that the choice is made with: they are alike, and all of them would take minutes.
ROWS = 1024


@dataclass(frozen=True)
class SmoothingChoice:
    """What becomes of an activation's channels before they are quantized: (x - shift) / divisors, in blocks.

    Attributes:
        shift: float32 [k].
        layout: the divisors and the blocks.
        max_abs: the largest value of the step that all rows share; None: each row has its own.
        error: what it is expected to leave, up to a factor that all candidates have.
    """

    shift: Float32
    layout: ChannelLayout
    max_abs: np.float32 | None
    error: float


def choose_smoothing(
    seen: SiteStatistics, weights: Sequence[Matrix], *, shifts: bool, groups: tuple[int, int, int] | None = None
) -> SmoothingChoice:
    """Shift, and divisor of each channel with the geometric mean 1; with shifts, rows may come to share a step.

    Args:
        seen: statistics of the activation.
        weights: of all layers that read it, [out, k] each.
        shifts: whether the activation can be shifted channel by channel; if not, each row is centered on its own.
        groups: (groups, members, size) of the channels where the members of a group must share their divisors. Without
            groups, channels that cannot be shifted may be made in any order.
    """
    rows = _some_rows(weights)
    max_abs = np.maximum(np.abs(rows).max(axis=0), np.float32(1e-5))
    if groups is not None:
        max_abs = _largest(max_abs, groups)
    centers = [np.zeros_like(seen.mean)]
    if shifts:
        low, high = np.quantile(seen.sample, (0.005, 0.995), axis=0).astype(np.float32)
        centers += [(low + high) * np.float32(0.5), (seen.low + seen.high) * np.float32(0.5)]
    candidates = []
    for center in centers:
        sizes = np.abs(seen.sample - center)
        for size in (np.maximum(seen.high - center, center - seen.low), np.quantile(sizes, 0.99, axis=0)):
            activations = np.maximum(size.astype(np.float32), np.float32(1e-4))
            if groups is not None:
                activations = _largest(activations, groups)
            candidates += [(center, _divisors(activations, max_abs, strength)) for strength in STRENGTHS]
    most = MAX_BLOCKS if groups is None and not shifts else 1
    squares = np.square(seen.sample @ rows.T).sum(axis=1, keepdims=True)
    outputs = np.where(squares > TINY, squares, np.float32(np.inf))
    found = []
    for center, divisors in candidates:
        sizes = _sizes(seen, (rows, outputs), center, divisors, centered=not shifts)
        blocks, error = best_partition(sizes, most)
        found.append(SmoothingChoice(center, ChannelLayout(divisors, blocks), None, error))
        furthest = HEADROOM * (np.maximum(seen.high - center, center - seen.low) / divisors).max()
        if shifts and seen.tokens >= MIN_TOKENS and furthest > TINY:
            error = shared_step_error(sizes, furthest, float((1 / outputs).mean()))
            found.append(SmoothingChoice(center, ChannelLayout(divisors, blocks), furthest, error))
    own = min((item for item in found if item.max_abs is None), key=lambda item: item.error)
    shared = min((item for item in found if item.max_abs is not None), key=lambda item: item.error, default=own)
    return shared if shared.error <= SHARED_STEP_COST * own.error else own


def _divisors(activations: Float32, max_abs: Float32, strength: float) -> Float32:
    scale = activations**strength / max_abs ** (1 - strength)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _sizes(
    seen: SiteStatistics, read: tuple[Float32, Float32], shift: Float32, divisors: Float32, *, centered: bool
) -> Sizes:
    """What the error of a candidate depends on; `read` are rows of the weights and the size of each token's outputs."""
    rows, outputs = read
    return Sizes(
        tokens=((seen.sample - shift) / divisors / np.sqrt(outputs)).astype(np.float32),
        centered=centered,
        weights=np.abs(rows) * divisors,
        gain=np.square(rows).sum(axis=0) * np.square(divisors),
        variance=ROUNDED_WELL * (np.square(seen.sample - seen.mean) / outputs).mean(axis=0) / np.square(divisors),
    )


def _some_rows(weights: Sequence[Matrix]) -> Float32:
    """Rows of all matrices, evenly taken."""
    stride = max(1, sum(matrix.shape[0] for matrix in weights) // ROWS)
    return np.concatenate([matrix.rows(_every(stride, matrix.shape[0])) for matrix in weights])


def _every(stride: int, rows: int) -> npt.NDArray[np.intp]:
    """Indices of every stride-th row, counted anew in each chunk of rows."""
    return np.concatenate([np.arange(start, stop, stride) for start, stop in row_chunks(rows)])


def _largest(values: Float32, groups: tuple[int, int, int]) -> Float32:
    """The largest of the members of each group, for all of them."""
    largest = values.reshape(groups).max(axis=1, keepdims=True)
    return np.broadcast_to(largest, groups).reshape(-1)
