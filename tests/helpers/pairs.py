"""Scores of pairs as a manifest has them."""

from __future__ import annotations

from typing import Literal

from embedpack.pack.score_recipes import PairScores, Template

Cut = Literal["document", "longest", "end"]


def pair_scores(
    parts: Template, max_tokens: int, cut: Cut, *, max_query_tokens: int | None = None, token_types: bool = False
) -> PairScores:
    """Scores without an offset and an activation."""
    return PairScores(
        parts=parts,
        instruction=None,
        max_tokens=max_tokens,
        max_query_tokens=max_query_tokens,
        max_document_tokens=None,
        cut=cut,
        overlap=None,
        token_types=token_types,
        offset=0.0,
        activation="none",
    )
