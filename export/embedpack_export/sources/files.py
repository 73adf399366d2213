"""Files of a checkpoint or an adapter from strangers: they must be regular, inside of the folder and not too large."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from embedpack.errors import CheckpointError, failed

# Gemma's tokenizer.json has 34 MB.
MAX_JSON_BYTES = 200_000_000
# Model cards with results of many benchmarks have a few MB.
MAX_TEXT_BYTES = 20_000_000
# File in the folder of the blobs that repositories of the hub's cache share, since huggingface_hub 2.
SHARED_MARK = ".huggingface-shared-blobs"


def check_file(path: Path, folder: Path, max_bytes: int | None = None) -> Path:
    """Check a file before it is opened: links out of the folder would copy files of the user into a pack.

    Links inside of the folder count as files, and so do those of the hub's cache into its blobs.

    Raises:
        CheckpointError: it is missing, not a regular file, a link out of the folder, or too large.
    """
    try:
        status = path.stat()
        target = path.resolve()
    except OSError as cause:
        raise CheckpointError(f"{path}: {failed('read', cause)}") from cause
    if not any(target.is_relative_to(place) for place in _places(folder)):
        raise CheckpointError(f"{path}: leads to {target}, outside of the folder; put a copy of the file in its place")
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file; put a copy of the file in its place")
    if max_bytes is not None and status.st_size > max_bytes:
        raise CheckpointError(f"{path}: has {status.st_size} bytes, at most {max_bytes} are read; is it another file?")
    return path


def exists(path: Path) -> bool:
    """True if there is anything at a path, also a link to nothing."""
    return os.path.lexists(path)


def read_file(path: Path, folder: Path, max_bytes: int) -> bytes:
    """Read a file that `check_file` accepts.

    Raises:
        CheckpointError: see there; or it cannot be read.
    """
    check_file(path, folder, max_bytes)
    try:
        return path.read_bytes()
    except OSError as cause:
        raise CheckpointError(f"{path}: {failed('read', cause)}") from cause


def _places(folder: Path) -> list[Path]:
    """The folder; in a snapshot of the hub's cache also the blobs of its repository, and those of all repositories."""
    folder = folder.resolve()
    snapshots = [place for place in folder.parents if place.name == "snapshots"][:1]
    stores = [place.parent / "blobs" for place in snapshots if (place.parent / "blobs").is_dir()]
    shared = [place.parents[1] / "blobs" for place in snapshots]
    stores += [store for store in shared if (store / SHARED_MARK).is_file()]
    return [folder, *stores]
