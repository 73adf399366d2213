"""Images as the patches of one square (CLIP, Radford et al. 2021, arXiv 2103.00020), the input of a vision graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedpack.inputs.patches import ImagePatches, normalized_rows
from embedpack.inputs.resize import check_aspect, resized_part
from embedpack.inputs.resize_filters import Cut
from embedpack.pack.input_recipes import SquareImage


def square_patches(image: npt.NDArray[np.uint8], spec: SquareImage) -> ImagePatches:
    """Resize an image, RGB uint8 [height, width, 3], normalize it and cut it into patches, in row-major order.

    InputError if both sides are resized, and one is more than 200 times the other.
    """
    count, side = spec.grid, spec.patch_size
    pixels = square_pixels(image, spec)[: count * side, : count * side]
    # [row of patches, y, column of patches, x, channel]
    blocks = pixels.reshape(count, side, count, side, 3)
    ordered = blocks.transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
    return ImagePatches(normalized_rows(ordered, spec.mean, spec.std), (count, count))


def square_pixels(image: npt.NDArray[np.uint8], spec: SquareImage) -> npt.NDArray[np.uint8]:
    """The square of an image before normalization, uint8 [size, size, 3], as torchvision makes it of a Pillow image."""
    height, width = image.shape[:2]
    if spec.resize == "exact":
        # The filters of a line have as many weights as it has pixels for each one after resizing.
        check_aspect(height, width)
        return resized_part(image, _center(spec.size, spec), _center(spec.size, spec), spec.filter)
    shorter = min(height, width)
    rows, columns = (_center(spec.size * side // shorter, spec) for side in (height, width))
    return resized_part(image, rows, columns, spec.filter)


def _center(size: int, spec: SquareImage) -> Cut:
    """The center of a side; round() rounds halves to even, as torchvision does."""
    return Cut(size, round((size - spec.size) / 2), spec.size)
