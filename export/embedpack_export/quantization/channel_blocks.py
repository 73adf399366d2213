"""Blocks of channels of an activation that share a quantization scale.

The scale of a row is its largest value over 127, so a few large channels make the scale of all channels coarse. If the
layer before can output the channels in another order, large channels are put together, and each block of channels gets
its own scale, for activations and for weights. Each block is a matrix product of its own, so there are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64

# Largest number of blocks. A further block must bring the error below MAX_ERROR_RATIO of the error without it.
MAX_BLOCKS = 8
MAX_ERROR_RATIO = 0.95
# Candidate bounds of blocks among the channels in descending order of size, in 64ths of their number.
BOUNDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
# Sizes of blocks are multiples of this: products of other sizes are slow.
BLOCK_MULTIPLE = 16

Blocks = tuple[npt.NDArray[np.intp], ...]


@dataclass(frozen=True)
class ErrorTerms:
    """Terms of the rounding error of a linear layer's outputs, from which the error of any block of channels follows.

    If the scales of activations and weights are their largest values over 127, the squared error from a block b is, up
    to a constant factor,

        mean_r(max_abs_r(b)^2) * sum_{k in b} gain_k + sum_n max_{k in b}(weights_nk)^2 * sum_{k in b} variance_k
    """

    tokens: Float32  # activations as they are quantized, each relative to the size of its outputs, float32 [tokens, k]
    centered: bool  # max_abs_r is half the range of token r in the block if true, else its largest absolute value
    weights: Float32  # absolute weights as they are quantized, float32 [rows, k]
    gain: Float32  # squared error of the outputs per squared rounding error of a channel, float32 [k]
    variance: Float32  # squared error of the outputs per squared rounding error of a weight of the channel, float32 [k]

    def ordered(self, order: npt.NDArray[np.intp]) -> ErrorTerms:
        """The terms with the channels in another order."""
        return replace(
            self,
            tokens=self.tokens[:, order],
            weights=self.weights[:, order],
            gain=self.gain[order],
            variance=self.variance[order],
        )


def best_partition(terms: ErrorTerms, max_blocks: int) -> tuple[Blocks, float]:
    """Partition channels into at most `max_blocks` blocks with the smallest error; returns the blocks and the error."""
    channels = len(terms.gain)
    if max_blocks == 1:
        return (np.arange(channels),), float(_errors(terms, [0, channels])[0, 1])
    order = np.argsort(-np.quantile(np.abs(terms.tokens), 0.99, axis=0), kind="stable")
    inner = {channels * bound // 64 // BLOCK_MULTIPLE * BLOCK_MULTIPLE for bound in BOUNDS} - {0}
    edges = [0, *sorted(inner), channels]
    errors = _errors(terms.ordered(order), edges)
    # best[e]: error and inner bounds of the channels before edge e in one block; in one more after each round.
    best: list[tuple[float, tuple[int, ...]]] = [(float(errors[0, edge]), ()) for edge in range(len(edges))]
    error, bounds = best[-1]
    for _ in range(max_blocks - 1):
        best = [
            min(
                ((best[cut][0] + float(errors[cut, edge]), (*best[cut][1], cut)) for cut in range(1, edge)),
                default=(np.inf, ()),
            )
            for edge in range(len(edges))
        ]
        if best[-1][0] > MAX_ERROR_RATIO * error:
            break
        error, bounds = best[-1]
    return tuple(np.split(order, [edges[bound] for bound in bounds])), error


def static_scale_error(terms: ErrorTerms, max_abs: np.float32, outputs: float) -> float:
    """Error of all channels as one block if all rows share the scale `max_abs` / 127.

    `outputs`: mean of 1 / size of a token's outputs; `terms.tokens` are relative to these sizes, `max_abs` is not.
    """
    activations = np.square(max_abs) * outputs * terms.gain.sum()
    return float(activations + np.square(terms.weights.max(axis=1)).sum() * terms.variance.sum())


def _errors(terms: ErrorTerms, edges: list[int]) -> Float64:
    """Errors of the blocks between any two edges, [first, last]; infinite where last <= first."""
    between = [slice(start, stop) for start, stop in pairwise(edges)]
    high = np.stack([terms.tokens[:, part].max(axis=1) for part in between], axis=1)
    low = np.stack([terms.tokens[:, part].min(axis=1) for part in between], axis=1)
    weights = np.stack([terms.weights[:, part].max(axis=1) for part in between], axis=1)
    gain = np.array([terms.gain[part].sum() for part in between])
    variance = np.array([terms.variance[part].sum() for part in between])
    errors = np.full((len(edges), len(edges)), np.inf)
    for first in range(len(between)):
        for last in range(first + 1, len(edges)):
            block = slice(first, last)
            top, bottom = high[:, block].max(axis=1), low[:, block].min(axis=1)
            max_abs = (top - bottom) / 2 if terms.centered else np.maximum(top, -bottom)
            errors[first, last] = (
                np.square(max_abs).mean(dtype=np.float64) * gain[block].sum()
                + np.square(weights[:, block].max(axis=1)).sum(dtype=np.float64) * variance[block].sum()
            )
    return errors
