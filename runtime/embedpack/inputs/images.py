"""Images of the caller as RGB arrays: numpy arrays, Pillow images, files, bytes.

Pillow is imported at the first image that is not an array.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from embedpack.errors import CapacityError, InputError, MissingExtraError
from embedpack.inputs.limits import MAX_FILE_BYTES, check_empty, check_size, open_file

if TYPE_CHECKING:
    import PIL.Image

ImageSource: TypeAlias = "PIL.Image.Image | Path | bytes | npt.NDArray[np.uint8]"


def is_image(value: object) -> TypeGuard[ImageSource]:
    """Check whether `read_image` accepts a value of this type."""
    # An image of Pillow can exist only if Pillow has been imported.
    pillow = getattr(sys.modules.get("PIL.Image"), "Image", ())
    return isinstance(value, (Path, bytes, np.ndarray, pillow))


def read_image(source: object, number: int) -> npt.NDArray[np.uint8]:
    """Read an image, upright and on a white background; color profiles are not applied.

    Args:
        source: a numpy array (uint8 [height, width, 3], RGB), a Pillow image, a path, or the bytes of a file.
        number: position of the image among the inputs, for error messages.

    Returns:
        RGB uint8 [height, width, 3]; it may share memory with `source` and may be read-only.

    Raises:
        InputError: `source` is not an image, is damaged, or has several frames.
        CapacityError: it has more than `MAX_PIXELS` pixels or `MAX_FILE_BYTES` bytes.
        MissingExtraError: Pillow is needed and not installed.
    """
    name = f"image {number}"
    if isinstance(source, np.ndarray):
        return _checked_array(source, name)
    if isinstance(source, bytes):
        _check_bytes(len(source), name)
        return _pillow().decode(io.BytesIO(source), name)
    if isinstance(source, Path):
        name = f"image {number} ({source})"
        if source.suffix.lower() == ".pdf":
            raise InputError(f"{name} is a PDF; pass its pages: embedpack.pdf_pages({str(source)!r})")
        with open_file(source, name, "a file") as stream:
            _check_bytes(os.fstat(stream.fileno()).st_size, name)
            return _pillow().decode(stream, name)
    if is_image(source):
        return _pillow().pixels(source, name)
    raise InputError(
        f"{name} is of type {type(source).__name__}; pass a pathlib.Path, the bytes of a file, a PIL image "
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
    check_empty(size, name)
    if size > MAX_FILE_BYTES:
        raise CapacityError(f"{name} has {size} bytes, at most {MAX_FILE_BYTES} are taken; make it smaller")
