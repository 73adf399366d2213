"""Filters that resize lines of bytes, with weights in fixed-point numbers as those of torch and of Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

FilterName = Literal["bicubic", "bilinear"]
Real = npt.NDArray[np.float64]

CUBIC = -0.5
# Most fractional bits of a weight; those of Pillow have always as many.
MAX_PRECISION = 22
# Outputs of one matrix product, and bytes of float64 that it reads at a time.
BAND_OUTPUTS = 16
STRIP_BYTES = 16_000_000


def _cubic(x: Real) -> Real:
    """Cubic convolution kernel (Keys 1981) with a = CUBIC at distances x >= 0."""
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: Real) -> Real:
    return np.maximum(1 - x, 0.0)


@dataclass(frozen=True)
class _Kernel:
    """Weight of an input by its distance x >= 0 from an output, 0 beyond `reach`."""

    reach: float
    weight: Callable[[Real], Real]


KERNELS: Mapping[FilterName, _Kernel] = {"bicubic": _Kernel(2, _cubic), "bilinear": _Kernel(1, _triangle)}


@dataclass(frozen=True)
class Cut:
    """Part of a resized line: `count` values from `first` on, of the `size` that the whole line would have."""

    size: int
    first: int
    count: int


@dataclass(frozen=True)
class Filter:
    """A filter: output i is sum_k weights[i, k] * input[starts[i] + k] / 2 ** precision.

    `starts` is int64 [outputs], `weights` are fixed-point numbers, int64 [outputs, taps], of `precision` fractional
    bits.
    """

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    precision: int

    def source(self, before: int) -> slice:
        """Range of the inputs that the outputs are made of, of `before` inputs."""
        return slice(int(self.starts[0]), min(before, int(self.starts[-1]) + self.weights.shape[1]))

    def moved(self, first: int) -> Filter:
        """The filter of a line that begins at the input `first`."""
        return replace(self, starts=self.starts - first)

    def apply(self, image: npt.NDArray[np.uint8], axis: int) -> npt.NDArray[np.uint8]:
        """Resize an axis of uint8 [height, width, channels]."""
        before, after = image.shape[axis], len(self.starts)
        bands = [self._band(first, before) for first in range(0, after, BAND_OUTPUTS)]
        lines = np.moveaxis(image, axis, -1)
        resized = np.empty((*lines.shape[:-1], after), np.uint8)
        step = max(1, STRIP_BYTES // (8 * lines.shape[1] * before))
        for first in range(0, len(lines), step):
            # Sums of integers below 2^53 are exact in float64 in any order, so a matrix product is safe.
            strip = lines[first : first + step].astype(np.float64, order="C")
            for block, (source, band) in enumerate(bands):
                target = resized[first : first + step, :, block * BAND_OUTPUTS : (block + 1) * BAND_OUTPUTS]
                np.clip(strip[..., source] @ band + 0.5, 0, 255, out=target, casting="unsafe")
        return np.moveaxis(resized, -1, axis)

    def _band(self, first: int, before: int) -> tuple[slice, Real]:
        """Range of the inputs of a block of outputs, and the matrix from these to the outputs."""
        block = replace(
            self, starts=self.starts[first : first + BAND_OUTPUTS], weights=self.weights[first : first + BAND_OUTPUTS]
        )
        source = block.source(before)
        band = np.zeros((source.stop - source.start, len(block.starts)))
        outputs, taps = np.nonzero(block.weights)
        band[block.starts[outputs] - source.start + taps, outputs] = block.weights[outputs, taps]
        return source, band / 2.0**self.precision


def bicubic_filter(before: int, after: int) -> Filter:
    """Filter of torch, "bicubic" with antialias, that resizes a line of `before` bytes; weights have 16 bits."""
    starts, weights = _real_weights(before, Cut(after, 0, after), KERNELS["bicubic"])
    precision = 0
    while precision < MAX_PRECISION and int(0.5 + weights.max() * 2 ** (precision + 1)) < 2**15:
        precision += 1
    return Filter(starts, _fixed(weights, precision), precision)


def pillow_filter(before: int, cut: Cut, name: FilterName) -> Filter:
    """Filter of Pillow's `resize` that resizes a line of `before` bytes and cuts a part out of the result."""
    starts, weights = _real_weights(before, cut, KERNELS[name])
    return Filter(starts, _fixed(weights, MAX_PRECISION), MAX_PRECISION)


def _fixed(weights: Real, precision: int) -> npt.NDArray[np.int64]:
    scaled = weights * 2**precision
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)


def _real_weights(before: int, cut: Cut, kernel: _Kernel) -> tuple[npt.NDArray[np.int64], Real]:
    """First input of each output, and the weights before rounding."""
    scale = before / cut.size
    widening = max(scale, 1.0)
    reach = kernel.reach * widening
    centres = scale * (np.arange(cut.first, cut.first + cut.count) + 0.5)
    starts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    taps = np.arange((ends - starts).max())
    distances = (taps + (starts - centres)[:, None] + 0.5) * (1 / widening)
    weights = np.where(taps < (ends - starts)[:, None], kernel.weight(np.abs(distances)), 0.0)
    # Summed one by one as in a compiled loop; numpy's sum adds pairwise.
    return starts, weights / np.cumsum(weights, axis=1)[:, -1:]
