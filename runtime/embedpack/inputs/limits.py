"""Limits of what one input may hold."""

from __future__ import annotations

from embedpack.errors import CapacityError

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
