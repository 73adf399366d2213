"""Image files by Pillow: single pixel images in a few formats, with errors of embedpack; imported only when needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from embedpack.errors import CapacityError, EmbedpackError, InputError
from embedpack.host.memory import check_memory
from embedpack.inputs.jpeg import check_scans
from embedpack.inputs.limits import MAX_FILE_BYTES, MAX_PIXELS, check_size
from embedpack.inputs.pillow_modes import rgb, upright

# The formats of the plugins imported above. Some of the others in Pillow start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_COUNTED_PAGES = 1000
# Bytes of memory per pixel, measured: the image in Pillow, its upright copy, and the array; libwebp has several copies,
# and TIFF can have numbers of 32 bits.
DEFAULT_PIXEL_BYTES = 12
PIXEL_BYTES = {"WEBP": 28, "TIFF": 20}
# A file of a few kilobytes can have as many pixels as its format allows.
MAX_DECODING_BYTES = DEFAULT_PIXEL_BYTES * MAX_PIXELS

# Pillow's error for a WebP whose decoder gets no memory, as well as for some damaged ones.
WEBP_MEMORY = "could not create decoder object"


def decode(stream: IO[bytes], name: str) -> npt.NDArray[np.uint8]:
    """Pixels of the image file `name`, RGB uint8 [height, width, 3]; errors as of `images.read_image`."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError(
            f"{name}: Pillow is set to fill the missing part of cut files with gray; "
            "set PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False"
        )
    with _pillow_errors(name):
        return pixels(_opened(stream, name), name)


def pixels(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Pixels of a Pillow image, loaded or not, RGB uint8 [height, width, 3]; errors as of `images.read_image`."""
    check_size(image.width, image.height, name)
    # MPO, which many cameras write, is a JPEG followed by further pictures such as a preview.
    if image.format not in (None, "MPO", *FORMATS):
        raise InputError(f"{name} comes from a file of format {image.format}, which is not read; pass image.copy()")
    with _pillow_errors(name):
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise InputError(
                f"{name} holds {_count_frames(image)} frames; pass one of them as a PIL image: "
                "image.seek(n), then image.copy()"
            )
        _check_decoding(image, name)
        _check_jpeg(image, name)
        image.load()
        return rgb(upright(image), name)


def _check_decoding(image: Image.Image, name: str) -> None:
    """Check the memory that decoding takes against MAX_DECODING_BYTES and what is available."""
    size = f"{image.width} x {image.height} pixels"
    pixel_bytes = PIXEL_BYTES.get(image.format or "", DEFAULT_PIXEL_BYTES)
    needed = image.width * image.height * pixel_bytes
    if needed > MAX_DECODING_BYTES:
        raise CapacityError(
            f"{name} has {size}, at most {MAX_DECODING_BYTES // pixel_bytes} are decoded from a {image.format} file; "
            "make it smaller, or save it as PNG"
        )
    check_memory(needed, f"{name}: decoding {size}", "make it smaller, or free some memory")


def _opened(stream: IO[bytes], name: str) -> Image.Image:
    """Open an image and read its header only."""
    prefix = stream.read(16)
    for format in FORMATS:
        # Not Image.open: it loads plugins by file name, and only warns about too many pixels.
        factory, accept = Image.OPEN[format]
        if accept is not None and accept(prefix) is True:
            stream.seek(0)
            return factory(stream, "")
    hint = "a PDF? pass its pages: embedpack.pdf_pages" if prefix.startswith(b"%PDF") else "convert it, e.g. to PNG"
    raise InputError(f"{name} is no image that can be read ({', '.join(FORMATS)}); {hint}")


def _check_jpeg(image: Image.Image, name: str) -> None:
    """Check the scans of a JPEG file that has not been decoded."""
    # Pillow forgets the file and the tiles of a loaded image.
    stream = image.fp if isinstance(image, ImageFile.ImageFile) and image.tile else None
    if image.format in ("JPEG", "MPO") and stream is not None:
        position = stream.tell()
        stream.seek(0)
        check_scans(stream.read(MAX_FILE_BYTES), image.width * image.height, name)
        stream.seek(position)


def _count_frames(image: Image.Image) -> str:
    if image.format != "TIFF":
        return str(getattr(image, "n_frames", "several"))
    # Pillow compares every page with all pages before it: counting those of a small hostile file takes hours.
    for page in range(MAX_COUNTED_PAGES):
        try:
            image.seek(page)
        except EOFError:
            return str(page)
    return f"{MAX_COUNTED_PAGES} or more"


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    try:
        yield
    except EmbedpackError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise CapacityError(f"{name} is too large for Pillow: {cause} Make it smaller") from cause
    except MemoryError as cause:
        raise CapacityError(f"{name} does not fit the memory; make it smaller") from cause
    except Exception as cause:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and others
        remedy = "save it again, or free some memory" if WEBP_MEMORY in str(cause) else "save it again"
        raise InputError(f"{name} cannot be decoded, it is damaged or cut off: {cause}; {remedy}") from cause
