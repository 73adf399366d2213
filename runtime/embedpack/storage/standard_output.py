"""Lines of bytes on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from embedpack.errors import InputError


def write_lines(lines: Iterable[bytes]) -> None:
    """Write lines of bytes to standard output; InputError if there is none."""
    if sys.stdout is None:
        raise InputError("there is no standard output; write to a file with -o")
    sys.stdout.buffer.writelines(lines)
    sys.stdout.buffer.flush()
