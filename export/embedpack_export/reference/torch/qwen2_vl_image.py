"""Image to patches with torch, with the operations of transformers' fast image processor for Qwen2-VL.

Independent of the runtime on purpose: its image processing is tested against this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from embedpack.errors import InputError
from embedpack_export.sources.checkpoint import Size, read_json

RESCALE = 1 / 255
MAX_ASPECT = 200
Channels = Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]


class ImageSettings(msgspec.Struct, frozen=True):
    """Settings of preprocessor_config.json that determine the patches."""

    image_mean: Channels
    image_std: Channels
    min_pixels: Size
    max_pixels: Size
    patch_size: Size
    merge_size: Size
    temporal_patch_size: Size

    @property
    def factor(self) -> int:
        """Side of the square of one token, in pixels."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of an image: float32 [rows x columns, values], grouped by token; rows and columns count patches."""

    values: torch.Tensor
    rows: int
    columns: int


def read_image_settings(folder: Path) -> ImageSettings:
    """Read preprocessor_config.json; raises CheckpointError if the file or a setting is missing."""
    return read_json(folder / "preprocessor_config.json", ImageSettings)


def image_patches(image: npt.NDArray[np.uint8], settings: ImageSettings) -> Patches:
    """Resize and normalize an image, and cut it into patches.

    Raises:
        InputError: the image is not uint8 [height, width, 3], or too narrow.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"an image must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
    height, width = resized(image.shape[0], image.shape[1], settings)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
    pixels = torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values) * (1 / RESCALE) for values in (settings.image_mean, settings.image_std))
    normal = (pixels[0].float() - mean[:, None, None]) / std[:, None, None]
    return _cut(normal, settings)


def resized(height: int, width: int, settings: ImageSettings) -> tuple[int, int]:
    """Height and width in whole tokens, with an area between the bounds.

    Raises:
        InputError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(f"an image of {width} x {height} pixels is too narrow: at most {MAX_ASPECT} to 1")
    factor = settings.factor
    sides = [round(side / factor) * factor for side in (height, width)]
    if math.prod(sides) > settings.max_pixels:
        shrink = math.sqrt(height * width / settings.max_pixels)
        sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)]
    elif math.prod(sides) < settings.min_pixels:
        grow = math.sqrt(settings.min_pixels / (height * width))
        sides = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return sides[0], sides[1]


def _cut(pixels: torch.Tensor, settings: ImageSettings) -> Patches:
    patch, merge, frames = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    still = pixels.expand(frames, *pixels.shape)
    blocks = still.reshape(1, frames, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    values = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns, 3 * frames * patch * patch)
    return Patches(values, rows, columns)
