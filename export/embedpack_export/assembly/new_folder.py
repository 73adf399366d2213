"""Atomic creation of a pack folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError, PackError
from embedpack.pack.folder import listed_files
from embedpack.pack.manifest import MANIFEST_NAME
from embedpack.storage.atomic import disk_errors
from embedpack.storage.temporary import REPLACED, remove_leftovers, sync_folder, sync_tree, temporary_folder

OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@dataclass(frozen=True)
class NewPack:
    """Folders of an export: the new pack, and one for temporary files on the same disk."""

    folder: Path
    scratch: Path


@contextmanager
def new_pack(output: Path, *, overwrite: bool) -> Iterator[NewPack]:
    """Make a temporary folder next to `output`, and rename it to `output` if the block ends without an error.

    Raises:
        InputError: `output` exists and may not be replaced, also if it appears during the block; or the folder cannot
            be written.
        CapacityError: the disk is full.
    """
    check_output(output, overwrite=overwrite)
    with disk_errors(output):
        place = output.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(place) as temporary:
            new = NewPack(temporary / "pack", temporary / "scratch")
            new.folder.mkdir()
            new.scratch.mkdir()
            yield new
            sync_tree(new.folder)
            _take_place(new.folder, place, temporary / REPLACED, overwrite=overwrite)
            sync_folder(place.parent)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Remove what killed exports left next to an output; raise InputError if it exists and is no pack to overwrite."""
    with disk_errors(output):
        remove_leftovers(output.resolve().parent)
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return
        _check_files(output, output)
        if not overwrite:
            raise InputError(f"{output}: exists; choose another folder, or pass --overwrite")


def _check_files(folder: Path, output: Path) -> None:
    """Refuse a folder that is no pack, or has other files than its pack; `output` is its name in messages."""
    try:
        names = listed_files(folder)
    except PackError as cause:
        raise InputError(f"{output}: exists and is no pack; choose another folder") from cause
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name != MANIFEST_NAME and name not in names:
            raise InputError(f"{output}: contains {name!r}, which is not part of the pack; move it away first")


def _take_place(pack: Path, output: Path, replaced: Path, *, overwrite: bool) -> None:
    """Rename a pack to its output; a pack in that place is moved to `replaced` first."""
    previous = replaced / output.name
    if overwrite and output.is_dir() and any(output.iterdir()):
        replaced.mkdir()
        os.rename(output, previous)
    try:
        if previous.exists():
            # Nobody adds files to it any more.
            _check_files(previous, output)
        os.rename(pack, output)
    except BaseException as cause:
        if previous.exists() and not output.exists():
            os.rename(previous, output)
        if isinstance(cause, OSError) and cause.errno in OCCUPIED:
            raise InputError(
                f"{output}: appeared while the pack was written, and is kept; choose another folder, and export again"
            ) from cause
        raise
