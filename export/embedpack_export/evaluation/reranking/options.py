"""Options of an evaluation of a reranker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedpack_export.evaluation.options import EvaluationOptions

DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """The embedder that finds the candidates."""

    pack: Path
    depth: int = DEPTH  # number of candidates of a query


@dataclass(frozen=True, kw_only=True)
class RerankingOptions:
    """Options of `bench accuracy` for a pack that gives scores."""

    evaluation: EvaluationOptions
    first_stage: FirstStage
