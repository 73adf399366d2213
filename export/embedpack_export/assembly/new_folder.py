"""Atomic creation of a pack folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedpack.errors import InputError, PackError
from embedpack.pack.folder import listed_files
from embedpack.pack.manifest import MANIFEST_NAME
from embedpack.storage.atomic import disk_errors


@contextmanager
def new_pack(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Make a temporary folder next to `output`, and rename it to `output` if the block ends without an error.

    Raises:
        InputError: `output` exists and may not be replaced, or the folder cannot be written.
        CapacityError: the disk is full.
    """
    check_output(output, overwrite=overwrite)
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            yield partial
            # Temporary folders are private; a pack should be as readable as any new folder.
            os.chmod(partial, 0o755)
            _take_place(partial, output)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise InputError if an output exists, unless it is a pack and may be overwritten."""
    with disk_errors(output):
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return
        try:
            names = listed_files(output)
        except PackError as cause:
            raise InputError(f"{output}: exists and is no pack; choose another folder") from cause
        if not overwrite:
            raise InputError(f"{output}: exists; choose another folder, or pass --overwrite")
        for path in sorted(output.rglob("*")):
            name = path.relative_to(output).as_posix()
            if not path.is_dir() and name != MANIFEST_NAME and name not in names:
                raise InputError(f"{output}: contains {name!r}, which is not part of the pack; move it away first")


def _take_place(partial: Path, output: Path) -> None:
    if not output.exists():
        os.rename(partial, output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    try:
        os.rename(output, old / output.name)
        os.rename(partial, output)
    except BaseException:
        if not output.exists():
            os.rename(old / output.name, output)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
