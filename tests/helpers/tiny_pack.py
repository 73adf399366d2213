"""Path of the committed pack, which tests only read."""

from __future__ import annotations

from pathlib import Path

TINY_PACK = Path(__file__).parents[1] / "runtime" / "packs" / "tiny"
