"""Changed image files of every format: bytes, sizes in headers, and scans of JPEG files."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from embedpack.inputs.images import read_image
from embedpack.inputs.limits import MAX_PIXELS
from tests.fuzz.mutations import NUMBERS, mutate_bytes
from tests.fuzz.outcome import Attempt, Fuzzer, check

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MODES = {
    "JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "L", "P", "1", "I;16"), "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L"), "BMP": ("RGB", "L", "1"), "TIFF": ("RGB", "RGBA", "L", "I;16", "F", "CMYK", "LAB"),
    "PPM": ("RGB", "L", "1"),
}  # fmt: skip
WIDTH, HEIGHT = 37, 23
# Characters from the end of a header that may hold a size.
HEADER = 200


def prepare(folder: Path) -> Attempt:
    """Tries with changed files, from bytes and from a path."""
    files = [encoded(format, mode) for format in FORMATS for mode in MODES[format]]
    path = folder / "image"

    def attempt(rng: random.Random) -> None:
        content = rng.choice(files)
        content = with_other_size(content, rng) if rng.random() < 0.4 else mutate_bytes(content, rng)
        if rng.random() < 0.2:
            path.write_bytes(content)
            pixels = read_image(path, 0)
        else:
            pixels = read_image(content, 0)
        check(pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, f"{pixels.dtype} {pixels.shape}")
        check(0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS, f"an image of {pixels.shape}")
        check(bool(np.array_equal(pixels, read_image(content, 0))), "read again, the pixels differ")

    return attempt


def encoded(format: str, mode: str) -> bytes:
    """A file of a format and a mode."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (HEIGHT, WIDTH), np.uint16))
    elif mode == "LAB":
        image = Image.frombytes("LAB", noise.size, noise.tobytes())
    else:
        image = noise.convert(mode)
    stream = io.BytesIO()
    options = {"progressive": True} if (format, mode) == ("JPEG", "L") else {}
    image.save(stream, format, **options)
    return stream.getvalue()


def with_other_size(content: bytes, rng: random.Random) -> bytes:
    """A file in which a number like its width or height is another one."""
    side, size = rng.choice((WIDTH, HEIGHT, WIDTH - 1, HEIGHT - 1)), rng.choice((1, 2, 4))
    order: Literal["little", "big"] = "little" if rng.random() < 0.5 else "big"
    number = rng.choice((*NUMBERS, 5000, 9999, 20_000)) % 256**size
    place = content.find(side.to_bytes(size, order), 0, HEADER)
    if place < 0:
        return mutate_bytes(content, rng)
    return content[:place] + number.to_bytes(size, order) + content[place + size :]


FUZZER = Fuzzer("images", 2000, prepare)
