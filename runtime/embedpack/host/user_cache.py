"""The user's cache folder, and the check that nobody else can write to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from embedpack.errors import PackError, failed

# Environment variable with another folder for what the runtime keeps; empty: nothing is kept.
CACHE_VARIABLE = "EMBEDPACK_CACHE"
# Permissions of the cache folder, and of what lies below it.
CACHE_FOLDER, PRIVATE_FOLDER, PRIVATE_FILE = 0o755, 0o700, 0o600
OTHER_CACHE = f"choose a folder of your own with ${CACHE_VARIABLE}, or with --cache of embedpack prepare"


def user_cache() -> Path | None:
    """$XDG_CACHE_HOME/embedpack, or ~/.cache/embedpack if the variable is unset or relative; None: there is no home.

    Below it lie what `runtime_cache` contains, vectors of the reference and downloaded checkpoints.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "embedpack"
    try:
        return Path.home() / ".cache" / "embedpack"
    except RuntimeError:  # a user without a home
        return None


def runtime_cache() -> Path | None:
    """$EMBEDPACK_CACHE, or the user's cache if the variable is unset; None: there is none.

    Below it lie prepacked graphs (`embedpack.engine.prepared`) and checked digests (`embedpack.pack.digests`).
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is None:
        return user_cache()
    return Path(chosen) if chosen else None


def check_private(path: Path) -> None:
    """Raise PackError for a file or folder that is missing, a link, or that other users could have written."""
    try:
        status = path.lstat()
    except OSError as cause:
        raise PackError(f"{path}: {failed('read', cause)}") from cause
    if stat.S_ISLNK(status.st_mode):
        raise PackError(f"{path}: a symbolic link; remove it, and run embedpack prepare again")
    # Windows has neither owners nor modes of this kind.
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise PackError(f"{path}: belongs to another user; {OTHER_CACHE}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PackError(f"{path}: others may write to it; run: chmod go-w {path}")


def check_folders_above(path: Path) -> None:
    """Raise PackError if other users could put another file or folder in the place of `path`.

    The folders above it, and links among them, must belong to the user or to root. If everybody may write to one, its
    sticky bit must keep others from moving what they do not own. Members of a folder's group are trusted.
    """
    if not hasattr(os, "geteuid"):  # Windows
        return
    try:
        for folder in sorted({*path.absolute().parents, *path.resolve().parents}):
            if not {folder.lstat().st_uid, folder.stat().st_uid} <= {0, os.geteuid()}:
                raise PackError(f"{path}: {folder} above it belongs to another user; {OTHER_CACHE}")
            if folder.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
                raise PackError(f"{path}: everybody may write to {folder} above it; {OTHER_CACHE}")
    except OSError as cause:
        raise PackError(f"{path}: {failed('read', cause)}") from cause
