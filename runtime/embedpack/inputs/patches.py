"""Images as rows of patches, the input of a vision graph (Qwen2-VL, arXiv 2409.12191)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.inputs.resize import resize_bicubic, smart_resize
from embedpack.pack.input_recipes import Channels, QwenImage


@dataclass(frozen=True)
class ImagePatches:
    """Patches of one image: `grid` of them along the height and along the width.

    `rows` are normalized pixel values, float32 [patches, values], of a patch in the order channel, frame, y, x. The
    patches of a token are consecutive; tokens, and patches within a token, are in row-major order.
    """

    rows: npt.NDArray[np.float32]
    grid: tuple[int, int]


def image_patches(image: npt.NDArray[np.uint8], spec: QwenImage, max_pixels: int | None = None) -> ImagePatches:
    """Resize an image, RGB uint8 [height, width, 3], normalize it and cut it into patches.

    `max_pixels` is the largest area after resizing, by default that of `spec`. InputError if it is below
    `spec.min_pixels`, or one side is more than 200 times the other.
    """
    limit = spec.max_pixels if max_pixels is None else max_pixels
    if limit < spec.min_pixels:
        raise InputError(f"max_pixels is {limit}; this model takes images of at least {spec.min_pixels} pixels")
    token = spec.patch_size * spec.merge_size
    height, width = smart_resize(image.shape[0], image.shape[1], token, spec.min_pixels, limit)
    pixels = resize_bicubic(image, height, width)
    side, merge = spec.patch_size, spec.merge_size
    # [token row, row of patches, y, token column, column of patches, x, channel]
    blocks = pixels.reshape(height // token, merge, side, width // token, merge, side, 3)
    ordered = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, side, side)
    return ImagePatches(
        normalized_rows(ordered, spec.mean, spec.std, spec.temporal_patch_size), (height // side, width // side)
    )


def normalized_rows(
    patches: npt.NDArray[np.uint8], mean: Channels, std: Channels, frames: int = 1
) -> npt.NDArray[np.float32]:
    """Rows of normalized values float32 [patches, values] of uint8 [patches, channel, y, x], equal in all frames."""
    count, channels, side, _ = patches.shape
    rows = np.empty((count, channels, frames, side, side), np.float32)
    means, deviations = (np.array(values, np.float32) * np.float32(255) for values in (mean, std))
    for channel in range(channels):
        levels = (np.arange(256, dtype=np.float32) - means[channel]) / deviations[channel]
        rows[:, channel] = levels[patches[:, channel]][:, None]
    return rows.reshape(count, -1)
