"""Paths of the committed packs, which tests only read."""

from __future__ import annotations

from pathlib import Path

TINY_PACK = Path(__file__).parents[1] / "runtime" / "packs" / "tiny"
# Scores of pairs, with token types, in fp32 and int8.
TINY_RERANKER = Path(__file__).parents[1] / "runtime" / "packs" / "tiny-reranker"
# Two tasks with adapters and multi-vectors, merged and switchable, in int8.
PACK_2_0 = Path(__file__).parents[1] / "data" / "pack-2.0"
