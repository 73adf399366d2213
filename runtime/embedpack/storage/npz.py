"""Reader and writer of .npz files: arrays in an uncompressed zip archive, as `numpy.savez` writes them.

A file is untrusted: nothing is unpickled, and no array is allocated before its bytes are known to be in the file.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, failed
from embedpack.storage.atomic import atomic_file

ZIP_SIGNATURE = b"PK\x03\x04"
ENDING = ".npy"
# Errors of `zipfile` and of numpy's header parser at damaged files.
DAMAGE = (
    zipfile.BadZipFile,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    RecursionError,
)


def is_npz(path: Path) -> bool:
    """True if a regular file begins as a zip archive; InputError if it cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{path}: {failed('read', cause)}") from cause


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of a file by name; they are read-only.

    Raises:
        InputError: the file cannot be read, is damaged or compressed, or has entries that are no arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) != len(entries):
                raise ValueError("an entry occurs twice")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise ValueError("its arrays are compressed; numpy.savez writes them as they are")
            return {entry.filename.removesuffix(ENDING): _read_array(archive, entry) for entry in entries}
    except OSError as cause:
        raise InputError(f"{path}: {failed('read', cause)}") from cause
    except DAMAGE as cause:
        raise InputError(f"{path}: not a valid npz file: {cause}; copy it again") from cause


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a file atomically.

    Raises:
        InputError, CapacityError: the file cannot be written.
    """
    with atomic_file(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> npt.NDArray[Any]:
    if not entry.filename.endswith(ENDING):
        raise ValueError(f"the entry {entry.filename!r} is no array")
    with archive.open(entry) as stream:
        shape, fortran_order, dtype = _read_header(stream)
        content = stream.read(entry.file_size)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{entry.filename} of shape {shape} and type {dtype} does not fill its {len(content)} bytes")
    if not dtype.itemsize:
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of an array file."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)
