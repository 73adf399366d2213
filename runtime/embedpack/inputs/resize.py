"""Image resizing: target size and filter of Qwen2-VL's processor, and a resized part of an image as Pillow's."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.inputs.resize_filters import Cut, FilterName, bicubic_filter, pillow_filter

MAX_ASPECT = 200


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width after resizing: multiples of `factor`, close to the aspect ratio of the image.

    The area lies between the two limits; if these are close or small, no multiple may do so. `factor` is the number of
    pixels along each side of a token. InputError if one side is more than 200 times the other.
    """
    check_aspect(height, width)
    # round() rounds halves to even, as the reference does.
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows * factor, columns * factor


def check_aspect(height: int, width: int) -> None:
    """Raise InputError if one side is more than 200 times the other."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(
            f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other; cut the image into parts"
        )


def resize_bicubic(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize uint8 [height, width, channels] to the same integers as torch's interpolate, mode "bicubic", antialias.

    Rows are resized first and rounded to bytes before the columns.
    """
    for axis, after in ((1, width), (0, height)):
        before = image.shape[axis]
        image = image if before == after else bicubic_filter(before, after).apply(image, axis)
    return image


def resized_part(image: npt.NDArray[np.uint8], rows: Cut, columns: Cut, filter: FilterName) -> npt.NDArray[np.uint8]:
    """A part of the resized uint8 [height, width, channels], the same integers as Pillow's `resize` and `crop`.

    Rows are resized first, as all images up to Pillow 12; later versions begin with the columns of some. Pixels that
    the part does not depend on are not computed, so that its memory does not grow with the whole size.
    """
    cuts = {1: columns, 0: rows}
    filters = {
        axis: pillow_filter(image.shape[axis], cut, filter)
        for axis, cut in cuts.items()
        if image.shape[axis] != cut.size
    }
    for axis, cut in cuts.items():
        whole = slice(cut.first, cut.first + cut.count)
        source = filters[axis].source(image.shape[axis]) if axis in filters else whole
        image = image[:, source] if axis else image[source]
        if axis in filters:
            filters[axis] = filters[axis].moved(source.start)
    for axis, resize in filters.items():
        image = resize.apply(image, axis)
    return image
