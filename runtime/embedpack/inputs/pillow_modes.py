"""Loaded Pillow images of all modes as RGB, upright and on white; imported only when needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from embedpack.errors import InputError

MAX_GRAY16 = 65_535
# Pixels that are converted at a time.
STRIP_PIXELS = 1_000_000


def upright(image: Image.Image) -> Image.Image:
    """Image turned by its orientation tag; a tag that cannot be read is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises SyntaxError, struct.error and others; pixels are fine without the tag
        return image


def rgb(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Pixels as RGB uint8 [height, width, 3].

    Gray values of 16 bits (modes I;16 and I) range from 0 to 65535. Those of mode F range from 0 to 1, 255 or 65535,
    the first that none of them exceeds, as files do not record the range. InputError for a value outside these ranges.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_gray(image, name)[..., None], 3, axis=2)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(_strip(strip))
    return pixels


def _strip(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        colors = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(colors, mask=colors)
    return image.convert("RGB")


def _gray(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= MAX_GRAY16:  # false for NaN too
        raise InputError(
            f"{name} has gray values from {low} to {high} (mode {image.mode}); scale them to 0..{MAX_GRAY16}"
        )
    if image.mode == "F":
        top = next(top for top in (1, 255, MAX_GRAY16) if high <= top)
        return np.rint(values * np.float32(255 / top)).astype(np.uint8)
    levels = np.rint(np.arange(MAX_GRAY16 + 1) / 257).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        levels[clear] = 255
    return levels[values]


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # missing in some builds of Pillow

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None only for conversions in place
    return converted
