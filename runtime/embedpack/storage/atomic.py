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
    """Turn an OSError of the block into a CapacityError (disk full) or an InputError that names the path.

    Raises:
        CapacityError: the disk or the quota is full.
        InputError: the path cannot be written for any other reason.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(f"{path}: the disk is full; free some space or write elsewhere") from cause
        raise InputError(f"{path}: cannot be written: {cause.strerror or cause}") from cause


@contextmanager
def atomic_file(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its name only when the block ends without an error.

    Args:
        path: final path of the file.
        mode: permissions of the file, before the process's umask.

    Raises:
        CapacityError, InputError: see `disk_errors`.
    """
    with disk_errors(path):
        stream = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
        try:
            with stream:
                yield stream
            os.chmod(stream.name, mode & ~_umask())
            os.replace(stream.name, path)
        except BaseException:
            os.unlink(stream.name)
            raise


def _umask() -> int:
    # There is no way to ask for the mask without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
