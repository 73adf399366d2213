"""Temporary files and folders next to their final place, and removal of those that killed processes left.

A process holds a lock (flock) on each temporary file or folder. The kernel releases it when the process ends, however
it ends; neither clocks nor process ids count. Without a lock to take, nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

NAME = re.compile(r"\..*\.[0-9a-f]{16}\.embedpack", re.DOTALL)
# Names of files have at most 255 bytes.
MAX_NAME_CHARACTERS = 40
LOCK = "lock"
# Place that a folder is moved to when a new one replaces it; it is moved back if the process dies in between.
REPLACED = "replaced"


def temporary_file(path: Path, mode: int) -> IO[bytes]:
    """Create a locked binary file next to `path`; `mode` are its permissions before the process's umask."""
    while True:
        temporary = _temporary_path(path)
        stream = open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if _hold(stream, temporary):
            return stream
        stream.close()


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Create a locked folder next to `path`; it is removed when the block ends."""
    with contextlib.ExitStack() as stack:
        while True:
            folder = _temporary_path(path)
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                lock = stack.enter_context((folder / LOCK).open("wb"))
                if _hold(lock, folder / LOCK):
                    break
        yield folder


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of processes that are no longer alive.

    Only entries of this module's names that belong to the user count. Entries that cannot be removed stay.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if NAME.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                _remove_dead(Path(entry.path))


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that a rename outlives a power cut."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems cannot do this, and write names at once.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Fsync all files and folders below `folder`."""
    for place, _, names in os.walk(folder):
        for name in names:
            with (Path(place) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(place))


def _temporary_path(path: Path) -> Path:
    return path.parent / f".{path.name[:MAX_NAME_CHARACTERS]}.{secrets.token_hex(8)}.embedpack"


def _hold(stream: IO[bytes], path: Path) -> bool:
    """Lock a file; False if another process took it for a leftover before it was locked."""
    if sys.platform == "win32":
        return True
    with contextlib.suppress(OSError):  # no locks on this file system: then nobody removes it either
        fcntl.flock(stream, fcntl.LOCK_EX)
    return _is_at(stream, path)


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_dead(path: Path) -> None:
    """Remove a temporary file or folder; OSError if its process lives, or the file system has no locks."""
    status = os.lstat(path)
    is_folder = stat.S_ISDIR(status.st_mode)
    if sys.platform == "win32" or status.st_uid != os.geteuid() or not (is_folder or stat.S_ISREG(status.st_mode)):
        return
    locked = path / LOCK if is_folder else path
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if is_folder else 0)
    with open(os.open(locked, flags, 0o600), "r+b", buffering=0) as stream:  # noqa: PTH123
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(stream, locked):
            return
        if is_folder:
            _restore(path)
            shutil.rmtree(path)
        else:
            path.unlink()


def _restore(temporary: Path) -> None:
    replaced = temporary / REPLACED
    for previous in replaced.iterdir() if replaced.is_dir() else ():
        target = temporary.parent / previous.name
        if not os.path.lexists(target):
            os.rename(previous, target)
