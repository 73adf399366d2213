"""Results of an evaluation, as they are written to JSON: scores in points (100 is perfect) and cosines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from embedpack.vectors.codes import Precision
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.sets.data import Kind
from embedpack_export.metrics.cosines import CosineSummary
from embedpack_export.metrics.non_inferiority import NonInferiority
from embedpack_export.planning.settings import ReferenceKind

VectorKind = Literal["single", "multi"]
Measure = Literal["nDCG@10", "Spearman"]


@dataclass(frozen=True, order=True)
class Setting:
    """A variant and the vectors that documents are stored as; queries are float32."""

    variant: str
    vectors: VectorKind  # single vectors, compared by cosine, or multi-vectors, compared by MaxSim
    dimensions: int
    precision: Precision  # precision of documents; of the second text of pairs
    pool_factor: int = 1  # token pooling of documents

    @property
    def stored(self) -> str:
        """Dimensions, precision and pool factor of a document, e.g. "multi 128 int8 / 2"."""
        pooled = f" / {self.pool_factor}" if self.pool_factor > 1 else ""
        kind = "multi " if self.vectors == "multi" else ""
        return f"{kind}{self.dimensions} {self.precision}{pooled}"

    def __str__(self) -> str:
        return f"{self.variant} {self.stored}"


@dataclass(frozen=True, eq=False, kw_only=True)
class QueryScores:
    """Scores of the single queries (or pairs) behind a `SetResult`."""

    setting: Setting  # the setting that was measured
    measure: Measure
    # Score of each query, with the setting and with the reference, in points, [queries].
    scores: Float64
    reference: Float64
    languages: Sequence[str]
    full_reference: float  # mean score of the reference in float32 at full dimensions
    bytes: float  # mean bytes of a document

    @property
    def differences(self) -> Float64:
        """Scores minus those of the reference, [queries]."""
        return self.scores - self.reference


class SetResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Result of a setting on one set."""

    set: str
    queries: int  # number of queries or pairs
    # Score of the reference in float32 at the same dimensions, and of the setting.
    reference: float
    score: float
    difference: float  # score - reference
    # Bounds of the 95 % interval of the difference; NaN until `summary` computes them.
    low: float = math.nan
    high: float = math.nan
    recall_at_100: float | None  # mean Recall@100; None for pairs
    # Share of the reference's first ten documents that are among the first ten; None for pairs.
    top_10_overlap: float | None
    rank_biased_overlap: float | None  # overlap with the reference's ranking (p = 0.9); None for pairs
    # Cosines with the reference's vectors: of queries and documents, or of coded documents alone; of each token for
    # multi-vectors; None for pooled multi-vectors.
    cosine: CosineSummary | None
    per_query: QueryScores | UnsetType = UNSET  # scores of single queries; not written to JSON

    @property
    def by_query(self) -> QueryScores:
        """Scores of single queries, of a result that was not read from JSON."""
        assert self.per_query is not UNSET
        return self.per_query


@dataclass(frozen=True)
class WorstGroup:
    """The set or the language with the largest loss."""

    name: str  # name of the set or language
    queries: int
    difference: float  # mean difference in points
    # Bounds of its 95 % interval.
    low: float
    high: float


class SettingResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Result of a setting over all sets of a task that have the same measure; every set has the same weight."""

    setting: Setting
    measure: Measure  # nDCG@10 of rankings, or Spearman's correlation of cosines with human scores
    decides_exit_status: bool  # the exit status depends on the outcome
    bytes: int  # mean bytes of a document
    # Mean over the sets, of the reference in float32 at the same dimensions, and of the setting.
    reference: float
    score: float
    retention: float | None  # score divided by the reference's at full dimensions; None if that is 0
    test: NonInferiority  # non-inferiority test of score - reference
    # Groups with the largest loss.
    worst_set: WorstGroup
    worst_language: WorstGroup
    sets: Sequence[SetResult]


@dataclass(frozen=True)
class CosineGroups:
    """Cosines of a variant's full float32 vectors with the reference's, by language and by length in tokens."""

    variant: str
    languages: Mapping[str, CosineSummary]
    lengths: Mapping[str, CosineSummary]


@dataclass(frozen=True, kw_only=True)
class SetDescription:
    """Size of a set and the reference's scores on it."""

    name: str
    kind: Kind
    documents: int  # number of documents; 0 for pairs
    queries: int  # number of queries or pairs
    unjudged: int  # number of queries without a relevant document, which are not measured
    empty: int  # number of empty texts or pairs, which were left out
    reference: float  # score of the reference at full dimensions
    recall_at_100: float | None  # Recall@100 of the reference; None for pairs


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Results of a task."""

    task: str
    sets: Sequence[SetDescription]
    settings: Sequence[SettingResult]
    cosines: Sequence[CosineGroups]


@dataclass(frozen=True)
class CombinedResult:
    """Result of the same weights format and stored vectors over the sets of all tasks.

    Every set has the same weight. Both measures, nDCG@10 and Spearman's correlation, are in points.
    """

    weights: str
    stored: str  # dimensions and precision of documents
    sets: int
    test: NonInferiority  # non-inferiority test of the mean difference


class MtebResult(msgspec.Struct, frozen=True, kw_only=True):
    """Main scores of a task of mteb in points."""

    name: str  # name of the task in mteb
    task: str
    variant: str
    # Main score of the reference and of the variant.
    reference: float
    score: float
    difference: float  # score - reference


class AccuracyReport(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Results of `bench accuracy`."""

    model: str
    fingerprint: str  # fingerprint of the pack's source
    reference: ReferenceKind
    margin: float  # loss in points that is allowed
    limit: int | None  # number of queries of each set; None: all
    seed: int
    passed: bool  # every outcome that decides the exit status is non-inferior
    tasks: Sequence[TaskResult]  # results of the tasks that have sets
    # Results over several tasks; informational, as the loss of one task can be hidden by the others.
    combined: Sequence[CombinedResult]
    skipped: Mapping[str, str]  # sets that were not measured, with the reason
    mteb: Sequence[MtebResult]  # scores of mteb; informational
