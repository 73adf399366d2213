"""Images of the caller as RGB arrays: numpy arrays, Pillow images, files, bytes.

Only arrays do without Pillow, which is imported when something else comes.
"""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np
import numpy.typing as npt

from embedpack.errors import CapacityError, InputError, MissingExtraError
from embedpack.inputs.limits import MAX_FILE_BYTES, check_size


def is_image(item: object) -> bool:
    """Whether `read_image` takes an item of this type."""
    # Where nobody has imported Pillow, there can be no image of it.
    pillow = getattr(sys.modules.get("PIL.Image"), "Image", ())
    return isinstance(item, (Path, bytes, np.ndarray, pillow))


def read_image(item: object, index: int) -> npt.NDArray[np.uint8]:
    """Read one image, upright and on white; a colour profile is not applied.

    Args:
        item: a numpy array (uint8 [height, width, 3], RGB), a Pillow image, a path, or the bytes of a file.
        index: number of the image in error messages.

    Returns:
        RGB [height, width, 3]; it may share memory with `item` and may be read-only.

    Raises:
        InputError: the item is no image, is damaged, or holds several frames.
        CapacityError: it has more than `MAX_PIXELS` pixels or `MAX_FILE_BYTES` bytes.
        MissingExtraError: it is no array, and Pillow is not installed.
    """
    name = f"image {index}"
    if isinstance(item, np.ndarray):
        return _checked_array(item, name)
    if isinstance(item, bytes):
        _check_bytes(len(item), name)
        return _pillow().decode(io.BytesIO(item), name)
    if isinstance(item, Path):
        name = f"image {index} ({item})"
        with _file(item, name) as stream:
            return _pillow().decode(stream, name)
    if is_image(item):
        return _pillow().pixels(item, name)
    raise InputError(
        f"{name} is of type {type(item).__name__}; pass a pathlib.Path, the bytes of a file, a PIL image "
        "or a uint8 array [height, width, 3]"
    )


def _pillow() -> ModuleType:
    try:
        from embedpack.inputs import pillow as pillow_image
    except ImportError as cause:
        raise MissingExtraError("images", "PIL") from cause
    return pillow_image


def _checked_array(array: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"{name} is {array.dtype} {list(array.shape)}; an array must be uint8 [height, width, 3], RGB")
    if not array.size:
        raise InputError(f"{name} is empty: {list(array.shape)}; leave it out")
    check_size(array.shape[1], array.shape[0], name)
    return np.ascontiguousarray(array, np.uint8)


def _check_bytes(size: int, name: str) -> None:
    if not size:
        raise InputError(f"{name} is empty (0 bytes); leave it out, or write it again")
    if size > MAX_FILE_BYTES:
        raise CapacityError(f"{name} has {size} bytes, at most {MAX_FILE_BYTES} are taken; make it smaller")


@contextmanager
def _file(path: Path, name: str) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".pdf":
        raise InputError(f"{name} is a PDF; pass its pages: embedpack.pdf_pages({str(path)!r})")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is a folder or a device; pass the path of a file")
        stream = path.open("rb")
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{name} cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    with stream:
        _check_bytes(status.st_size, name)
        yield stream
