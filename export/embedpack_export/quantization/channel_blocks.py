"""Which channels of an activation share a scale.

A row's step is its largest value over 127: a few large channels make it coarse for all. Where the layer in front can
make the channels in another order, large ones go together, and each block of them has a step of its own, for
activations and for weights. The blocks are products of their own, so there are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedpack_export.arrays import Float32

# Most blocks of an activation; one more must bring the error below this part of what it was.
MAX_BLOCKS = 8
MAX_ERROR_RATIO = 0.95
# Bounds of blocks among channels of falling size, in 64ths of their number.
BOUNDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
# Blocks are whole numbers of these: products of ragged ones are slow.
BLOCK_MULTIPLE = 16

Blocks = tuple[npt.NDArray[np.intp], ...]


@dataclass(frozen=True)
class Sizes:
    """What the rounding error of a block of channels depends on.

    With both steps the largest values over 127, up to a common factor the error of a block b is
    mean_r(max_abs_r(b)^2) * sum_{k in b} gain_k + sum_n max_{k in b}(weights_nk)^2 * sum_{k in b} variance_k.

    Attributes:
        tokens: activations as they are quantized, each relative to the size of its outputs, float32 [tokens, k].
        centered: whether max_abs_r is half the range of a token's values, or else the largest of their sizes.
        weights: sizes of the weights as they are quantized, float32 [rows, k].
        gain: how much of a channel's rounding error arrives at the outputs, float32 [k].
        variance: what a rounding error of a weight meets in a channel, float32 [k].
    """

    tokens: Float32
    centered: bool
    weights: Float32
    gain: Float32
    variance: Float32

    def ordered(self, order: npt.NDArray[np.intp]) -> Sizes:
        """The same with the channels in another order."""
        return replace(
            self,
            tokens=self.tokens[:, order],
            weights=self.weights[:, order],
            gain=self.gain[order],
            variance=self.variance[order],
        )


def best_partition(sizes: Sizes, most: int) -> tuple[Blocks, float]:
    """At most that many blocks of channels, and the error that they leave."""
    count = len(sizes.gain)
    if most == 1:
        return (np.arange(count),), float(_errors(sizes, [0, count])[0, 1])
    order = np.argsort(-np.quantile(np.abs(sizes.tokens), 0.99, axis=0), kind="stable")
    edges = [0, *sorted({count * bound // 64 // BLOCK_MULTIPLE * BLOCK_MULTIPLE for bound in BOUNDS} - {0}), count]
    errors = _errors(sizes.ordered(order), edges)
    # best[e]: error and inner bounds of the channels before edge e, in as many blocks as rounds so far.
    best: list[tuple[float, tuple[int, ...]]] = [(float(errors[0, edge]), ()) for edge in range(len(edges))]
    error, bounds = best[-1]
    for _ in range(most - 1):
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


def shared_step_error(sizes: Sizes, max_abs: np.float32, outputs: float) -> float:
    """The error of all channels as one block whose rows share the step that reaches so far.

    Args:
        sizes: of the channels.
        max_abs: the largest value that the step has to hold.
        outputs: mean of 1 / size of a token's outputs, to which `sizes.tokens` are relative and `max_abs` is not.
    """
    activations = np.square(max_abs) * outputs * sizes.gain.sum()
    return float(activations + np.square(sizes.weights.max(axis=1)).sum() * sizes.variance.sum())


def _errors(sizes: Sizes, edges: list[int]) -> npt.NDArray[np.float64]:
    """Errors of the blocks between two edges [first, last]; infinite where last <= first."""
    between = [slice(start, stop) for start, stop in pairwise(edges)]
    high = np.stack([sizes.tokens[:, part].max(axis=1) for part in between], axis=1)
    low = np.stack([sizes.tokens[:, part].min(axis=1) for part in between], axis=1)
    weights = np.stack([sizes.weights[:, part].max(axis=1) for part in between], axis=1)
    gain = np.array([sizes.gain[part].sum() for part in between])
    variance = np.array([sizes.variance[part].sum() for part in between])
    errors = np.full((len(edges), len(edges)), np.inf)
    for first in range(len(between)):
        for last in range(first + 1, len(edges)):
            block = slice(first, last)
            top, bottom = high[:, block].max(axis=1), low[:, block].min(axis=1)
            max_abs = (top - bottom) / 2 if sizes.centered else np.maximum(top, -bottom)
            errors[first, last] = (
                np.square(max_abs).mean(dtype=np.float64) * gain[block].sum()
                + np.square(weights[:, block].max(axis=1)).sum(dtype=np.float64) * variance[block].sum()
            )
    return errors
