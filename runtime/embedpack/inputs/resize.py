"""Resizing as Qwen2-VL's processor does it: the size it chooses, and torch's antialiased bicubic filter on bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError

MAX_ASPECT = 200
CUBIC = -0.5
MAX_PRECISION = 22
# Outputs that share one matrix product, and bytes of float64 that it reads at a time.
BLOCK = 16
STRIP_BYTES = 16_000_000


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width after resizing: multiples of `factor`, the aspect kept as far as that allows.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        factor: pixels along each side of one token.
        min_pixels: least area after resizing.
        max_pixels: largest area after resizing; where the two are close or small, multiples of `factor` break them.

    Raises:
        InputError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other; cut the image into parts"
        )
    # round() takes halves to the even neighbour, and so does the reference.
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows * factor, columns * factor


def resize_bicubic(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize bytes [height, width, channels] as torch's interpolate does it with mode "bicubic" and antialias.

    The same integers: weights of 16 bits, rows first, rounded to bytes before the columns.
    """
    return _resize_axis(_resize_axis(image, 1, width), 0, height)


@dataclass(frozen=True)
class Filter:
    """Output i is the sum of `weights[i, k]` times input `starts[i] + k`, divided by 2 to the power of `precision`."""

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    precision: int


def bicubic_filter(before: int, after: int) -> Filter:
    """Weights that resize a line of `before` bytes to `after`."""
    starts, weights = _real_weights(before, after)
    precision = 0
    while precision < MAX_PRECISION and int(0.5 + weights.max() * 2 ** (precision + 1)) < 2**15:
        precision += 1
    scaled = weights * 2**precision
    return Filter(starts, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64), precision)


def _real_weights(before: int, after: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    scale = before / after
    stretch = max(scale, 1.0)
    reach = 2 * stretch
    centres = scale * (np.arange(after) + 0.5)
    starts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    taps = np.arange((ends - starts).max())
    distances = (taps + (starts - centres)[:, None] + 0.5) * (1 / stretch)
    weights = np.where(taps < (ends - starts)[:, None], _cubic(np.abs(distances)), 0.0)
    # Added up one by one, as a compiled loop does: numpy's sum pairs its terms.
    return starts, weights / np.cumsum(weights, axis=1)[:, -1:]


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _resize_axis(image: npt.NDArray[np.uint8], axis: int, after: int) -> npt.NDArray[np.uint8]:
    before = image.shape[axis]
    if before == after:
        return image
    kernel = bicubic_filter(before, after)
    bands = [_band(kernel, first, before) for first in range(0, after, BLOCK)]
    lines = np.moveaxis(image, axis, -1)
    resized = np.empty((*lines.shape[:-1], after), np.uint8)
    step = max(1, STRIP_BYTES // (8 * lines.shape[1] * before))
    for first in range(0, len(lines), step):
        # Integers below 2^53 have exact sums in float64 in any order, so the fast product of matrices will do.
        strip = lines[first : first + step].astype(np.float64, order="C")
        for block, (source, band) in enumerate(bands):
            target = resized[first : first + step, :, block * BLOCK : (block + 1) * BLOCK]
            np.clip(strip[..., source] @ band + 0.5, 0, 255, out=target, casting="unsafe")
    return np.moveaxis(resized, -1, axis)


def _band(kernel: Filter, first: int, before: int) -> tuple[slice, npt.NDArray[np.float64]]:
    """The inputs that a block of outputs needs, and the matrix that turns the ones into the others."""
    starts, weights = kernel.starts[first : first + BLOCK], kernel.weights[first : first + BLOCK]
    source = slice(int(starts[0]), min(before, int(starts[-1]) + weights.shape[1]))
    band = np.zeros((source.stop - source.start, len(starts)))
    outputs, taps = np.nonzero(weights)
    band[starts[outputs] - source.start + taps, outputs] = weights[outputs, taps]
    return source, band / 2.0**kernel.precision
