"""Zero points of activations with a lower bound, as after GELU: one integer for all rows, which have their own scales.

With zero point z, the integers of a row with scale s stand for -z s ... (255 - z) s. So the scale of a row is its
largest value over 255 - z, but at least the size of the lowest value over z: few rows need that if z is well chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedpack.vectors.arrays import Float32

# Zero points that are tried; the others up to the middle of the range hardly differ from them.
ZERO_POINTS = range(1, 129)


@dataclass(frozen=True)
class BoundedRange:
    """Integer that stands for 0, and the least value that stands for the largest integer."""

    zero: int
    least: float


def bounded_range(tokens: Float32, bound: float) -> BoundedRange:
    """The range with the smallest mean squared scale for values of at least `bound`; `tokens` [n, k] are a sample."""
    if bound >= 0:
        return BoundedRange(0, 0.0)
    largest = tokens.max(axis=1).astype(np.float64)
    scales = [np.maximum(largest / (255 - zero), -bound / zero) for zero in ZERO_POINTS]
    zero = ZERO_POINTS[int(np.argmin([np.square(scale).mean() for scale in scales]))]
    return BoundedRange(zero, -bound / zero * (255 - zero))
