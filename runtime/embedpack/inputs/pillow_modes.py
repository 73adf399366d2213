"""Loaded Pillow images of every mode as RGB, upright and on white; to be imported only when needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from embedpack.errors import InputError

GREY16 = 65_535


def upright(image: Image.Image) -> Image.Image:
    """The image as its orientation tag wants it shown; a tag that cannot be read counts as none."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises SyntaxError, struct.error and others; pixels are fine without the tag
        return image


def rgb(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Pixels as RGB [height, width, 3].

    Greys of 16 bits (modes I;16 and I) run from 0 to 65535. Those of mode F run from 0 to the first of 1, 255 and 65535
    that none of them exceeds: files do not tell.

    Raises:
        InputError: a grey value is outside these ranges.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_grey(image, name)[..., None], 3, axis=2)
    if image.mode == "LAB":
        return np.asarray(_from_lab(image))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(colours, mask=colours)
    return np.asarray(image.convert("RGB"))


def _grey(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= GREY16:  # false for NaN too
        raise InputError(f"{name} has greys from {low} to {high} (mode {image.mode}); scale them to 0..{GREY16}")
    if image.mode == "F":
        top = next(top for top in (1, 255, GREY16) if high <= top)
        return np.rint(values * np.float32(255 / top)).astype(np.uint8)
    levels = np.rint(np.arange(GREY16 + 1) / 257).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        levels[clear] = 255
    return levels[values]


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # some builds of Pillow lack it

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None stands for a conversion in place
    return converted
