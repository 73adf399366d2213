"""Atomic writes of files, and disk failures as embedpack errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from embedpack.errors import CapacityError, InputError, failed
from embedpack.storage.temporary import remove_leftovers, sync_folder, temporary_file


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a CapacityError (disk or quota full) or an InputError that names the path."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(f"{path}: the disk is full; free some space or write elsewhere") from cause
        raise InputError(f"{path}: {failed('written', cause)}") from cause


def check_new_file(path: Path) -> None:
    """Try to create a file that is to be written later, to fail before the work; errors are those of `disk_errors`."""
    _check_name(path)
    with disk_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        remove_leftovers(path.parent)
        with temporary_file(path, 0o600) as stream:
            Path(stream.name).unlink()


@contextmanager
def atomic_file(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its name only once the block ends without an error and all bytes are on the disk.

    Errors are those of `disk_errors`. `mode` are the permissions of the file, before the process's umask.
    """
    _check_name(path)
    with disk_errors(path):
        remove_leftovers(path.parent)
        stream = temporary_file(path, mode)
        try:
            with stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(stream.name, path)
            sync_folder(path.parent)
        except BaseException:
            Path(stream.name).unlink(missing_ok=True)
            raise


def _check_name(path: Path) -> None:
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a path cannot have a null character; choose another name")
