"""Image resizing of Qwen2-VL's processor: its target size, and torch's antialiased bicubic filter on bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError

MAX_ASPECT = 200
CUBIC = -0.5
MAX_PRECISION = 22
# Outputs of one matrix product, and bytes of float64 that it reads at a time.
BAND_OUTPUTS = 16
STRIP_BYTES = 16_000_000


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width after resizing: multiples of `factor`, close to the aspect ratio of the image.

    The area lies between the two limits; if these are close or small, no multiple may do so. `factor` is the number of
    pixels along each side of a token. InputError if one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other; cut the image into parts"
        )
    # round() rounds halves to even, as the reference does.
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows * factor, columns * factor


def resize_bicubic(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize uint8 [height, width, channels] to the same integers as torch's interpolate, mode "bicubic", antialias.

    Weights have 16 bits. Rows are resized first and rounded to bytes before the columns.
    """
    return _resize_axis(_resize_axis(image, 1, width), 0, height)


@dataclass(frozen=True)
class Filter:
    """A filter: output i is sum_k weights[i, k] * input[starts[i] + k] / 2 ** precision.

    `starts` is int64 [outputs], `weights` are fixed-point numbers, int64 [outputs, taps], of `precision` fractional
    bits.
    """

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    precision: int


def bicubic_filter(before: int, after: int) -> Filter:
    """Filter that resizes a line of `before` bytes to `after`."""
    starts, weights = _real_weights(before, after)
    precision = 0
    while precision < MAX_PRECISION and int(0.5 + weights.max() * 2 ** (precision + 1)) < 2**15:
        precision += 1
    scaled = weights * 2**precision
    return Filter(starts, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64), precision)


def _real_weights(before: int, after: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """First input of each output, and the weights before rounding."""
    scale = before / after
    widening = max(scale, 1.0)
    reach = 2 * widening
    centres = scale * (np.arange(after) + 0.5)
    starts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    taps = np.arange((ends - starts).max())
    distances = (taps + (starts - centres)[:, None] + 0.5) * (1 / widening)
    weights = np.where(taps < (ends - starts)[:, None], _cubic(np.abs(distances)), 0.0)
    # Summed one by one as in a compiled loop; numpy's sum adds pairwise.
    return starts, weights / np.cumsum(weights, axis=1)[:, -1:]


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cubic convolution kernel (Keys 1981) with a = CUBIC at distances x >= 0."""
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _resize_axis(image: npt.NDArray[np.uint8], axis: int, after: int) -> npt.NDArray[np.uint8]:
    before = image.shape[axis]
    if before == after:
        return image
    kernel = bicubic_filter(before, after)
    bands = [_band(kernel, first, before) for first in range(0, after, BAND_OUTPUTS)]
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


def _band(kernel: Filter, first: int, before: int) -> tuple[slice, npt.NDArray[np.float64]]:
    """Range of the inputs of a block of outputs, and the matrix from these to the outputs."""
    starts, weights = kernel.starts[first : first + BAND_OUTPUTS], kernel.weights[first : first + BAND_OUTPUTS]
    source = slice(int(starts[0]), min(before, int(starts[-1]) + weights.shape[1]))
    band = np.zeros((source.stop - source.start, len(starts)))
    outputs, taps = np.nonzero(weights)
    band[starts[outputs] - source.start + taps, outputs] = weights[outputs, taps]
    return source, band / 2.0**kernel.precision
