"""The user's cache folder, and the check that nobody else can write to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from embedpack.errors import PackError, failed

# Environment variable with another folder for what the runtime keeps; empty: nothing is kept.
CACHE_VARIABLE = "EMBEDPACK_CACHE"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


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
        raise PackError(f"{path}: a symbolic link")
    # Windows has neither owners nor modes of this kind.
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise PackError(f"{path}: belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PackError(f"{path}: others may write to it")
