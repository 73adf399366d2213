"""Summary of `embedpack embed` as JSON."""

from __future__ import annotations

import msgspec

from embedpack.embedder import Embedder
from embedpack.engine.call_stats import CallStats
from embedpack.engine.options import EncodeSettings
from embedpack.pack.heads import vector_head


class Truncated(msgspec.Struct, frozen=True):
    """Texts that lost tokens: their number, the limit, and the ids of the first ones."""

    count: int
    max_tokens: int
    ids: list[str]


class EmbedSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run.

    Attributes:
        vectors: number of vectors, or of multi-vectors if `multi`.
        dimensions, precision, prompt_name: of the vectors; null: no prompt.
        texts: number of texts with tokens; `truncated` has those that were cut.
        empty: number of texts without any token.
        skipped: number of inputs that could not be used.
        seconds: time of the run.
    """

    vectors: int
    multi: bool
    dimensions: int
    precision: str
    prompt_name: str | None
    texts: int
    truncated: Truncated
    empty: int
    skipped: int
    seconds: float


def summary_of(model: Embedder, settings: EncodeSettings, stats: CallStats, vectors: int, skipped: int) -> EmbedSummary:
    """Summary of a run that has ended."""
    head = vector_head(model.pack, multi=settings.multi)
    return EmbedSummary(
        vectors=vectors,
        multi=settings.multi,
        dimensions=settings.truncate_dim or head.dimensions,
        precision=settings.precision,
        prompt_name=settings.prompt_name or None,
        texts=stats.texts,
        truncated=Truncated(stats.truncated, stats.limit, stats.truncated_ids),
        empty=stats.empty,
        skipped=skipped,
        seconds=round(stats.seconds, 3),
    )
