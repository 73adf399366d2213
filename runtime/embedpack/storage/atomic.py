"""Atomic writes of files, and disk failures as embedpack errors."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from embedpack.errors import CapacityError, InputError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a CapacityError (disk or quota full) or an InputError that names the path."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(f"{path}: the disk is full; free some space or write elsewhere") from cause
        raise InputError(f"{path}: cannot be written: {cause.strerror or cause}") from cause


@contextmanager
def atomic_file(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its name only when the block ends without an error; errors as of `disk_errors`.

    `mode` are the permissions of the file, before the process's umask.
    """
    with disk_errors(path):
        stream = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
        try:
            with stream:
                yield stream
            # There is no way to ask for the mask without setting it.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(stream.name, mode & ~umask)
            os.replace(stream.name, path)
        except BaseException:
            os.unlink(stream.name)
            raise
