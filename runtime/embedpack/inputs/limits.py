"""Limits of what one input may hold, and the files that inputs are read from."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import IO

from embedpack.errors import CapacityError, InputError, failed

# Texts longer than this are not embedded whole; tokenizing one would take minutes and gigabytes.
MAX_CHARACTERS = 20_000_000
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 256_000_000


def check_size(width: int, height: int, name: str) -> None:
    """Raise CapacityError for an image `name` of more than `MAX_PIXELS` pixels."""
    if width * height > MAX_PIXELS:
        raise CapacityError(
            f"{name} has {width} x {height} = {width * height} pixels, at most {MAX_PIXELS} are taken; make it smaller"
        )


def open_file(path: Path, name: str, kind: str) -> IO[bytes]:
    """Open a regular file to read; the InputError for anything else asks for the path of `kind`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{name} is a folder or a device; pass the path of {kind}")
        return path.open("rb")
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{name} {failed('read', cause)}") from cause


def check_empty(size: int, name: str) -> None:
    """Raise InputError for an empty file."""
    if not size:
        raise InputError(f"{name} is empty (0 bytes); leave it out, or write it again")
