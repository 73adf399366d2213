"""Zero points of bounded activations: nothing is clipped, and no other zero point has smaller scales."""

from __future__ import annotations

import numpy as np
import pytest

from embedpack.vectors.arrays import Float32
from embedpack_export.quantization.zero_point import ZERO_POINTS, BoundedRange, bounded_range


def gelu_like(seed: int, largest: float) -> Float32:
    values = np.random.default_rng(seed).standard_normal((50, 32)).astype(np.float32)
    return np.maximum(values * np.float32(largest / 3), np.float32(-0.17))


def scales(tokens: Float32, found: BoundedRange) -> Float32:
    return np.maximum(tokens.max(axis=1), np.float32(found.least)) / np.float32(255 - found.zero)


@pytest.mark.parametrize("largest", [0.05, 1.0, 40.0])
def test_all_values_down_to_the_bound_are_within_the_integers(largest: float) -> None:
    tokens = gelu_like(1, largest)
    found = bounded_range(tokens, -0.17)
    integers = np.rint(np.vstack([tokens.T, np.full(50, -0.17)]) / scales(tokens, found)) + found.zero
    assert integers.min() >= 0
    assert integers.max() <= 255


@pytest.mark.parametrize("largest", [1.0, 40.0])
def test_no_other_zero_point_has_smaller_scales(largest: float) -> None:
    tokens = gelu_like(2, largest)
    found = bounded_range(tokens, -0.17)
    others = [BoundedRange(zero, 0.17 / zero * (255 - zero)) for zero in ZERO_POINTS]
    errors = [float(np.square(scales(tokens, other)).mean()) for other in others]
    assert float(np.square(scales(tokens, found)).mean()) == pytest.approx(min(errors), rel=1e-5)


def test_values_from_zero_on_need_no_zero_point() -> None:
    assert bounded_range(np.abs(gelu_like(3, 1.0)), 0.0) == BoundedRange(0, 0.0)
