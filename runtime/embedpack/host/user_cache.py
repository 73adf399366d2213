"""The user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """$XDG_CACHE_HOME/embedpack, or ~/.cache/embedpack if the variable is unset or relative; None: there is no home.

    Below it lie prepared graphs (`embedpack.engine.prepared`), vectors of the reference and downloaded checkpoints.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "embedpack"
    try:
        return Path.home() / ".cache" / "embedpack"
    except RuntimeError:  # a user without a home
        return None
