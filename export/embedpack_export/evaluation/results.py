"""Results of an evaluation, as they are written to JSON: scores in points (100 is perfect) and cosines.

Attributes whose name differs from their key in JSON are listed in `rename`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from embedpack.vectors.codes import Precision
from embedpack_export.evaluation.sets.data import Kind
from embedpack_export.metrics.cosines import CosineSummary
from embedpack_export.metrics.non_inferiority import NonInferiority
from embedpack_export.metrics.rankings import Float64
from embedpack_export.planning.settings import ReferenceKind

VectorKind = Literal["single", "multi"]
Measure = Literal["nDCG@10", "Spearman"]


@dataclass(frozen=True, order=True)
class Setting:
    """A variant and the vectors that documents are stored as; queries are float32.

    Attributes:
        variant: name of the variant.
        vectors: single vectors, compared by cosine, or multi-vectors, compared by MaxSim.
        dimensions: number of dimensions.
        precision: precision of documents; of the second text of pairs.
        pool_factor: token pooling of documents.
    """

    variant: str
    vectors: VectorKind
    dimensions: int
    precision: Precision
    pool_factor: int = 1

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
    """Scores of the single queries (or pairs) behind a `SetResult`.

    Attributes:
        setting: the setting that was measured.
        measure: measure of all scores.
        scores, reference: score of each query, with the setting and with the reference, in points, [queries].
        languages: language of each query.
        full_reference: mean score of the reference in float32 at full dimensions.
        bytes: mean bytes of a document.
    """

    setting: Setting
    measure: Measure
    scores: Float64
    reference: Float64
    languages: Sequence[str]
    full_reference: float
    bytes: float

    @property
    def differences(self) -> Float64:
        """Scores minus those of the reference, [queries]."""
        return self.scores - self.reference


class SetResult(msgspec.Struct, frozen=True, kw_only=True, eq=False, rename={"score": "found"}):
    """Result of a setting on one set.

    Attributes:
        set: name of the set.
        queries: number of queries or pairs.
        reference, score: score of the reference in float32 at the same dimensions, and of the setting.
        difference: score - reference.
        low, high: bounds of the 95 % interval of the difference; NaN until `summary` computes them.
        recall_at_100: mean Recall@100; None for pairs.
        top_10_overlap: share of the reference's first ten documents that are among the first ten; None for pairs.
        rank_biased_overlap: overlap with the reference's ranking (p = 0.9); None for pairs.
        cosine: cosines with the reference's vectors: of queries and documents, or of coded documents alone; of each
            token for multi-vectors; None for pooled multi-vectors.
        per_query: scores of single queries; not written to JSON.
    """

    set: str
    queries: int
    reference: float
    score: float
    difference: float
    low: float = math.nan
    high: float = math.nan
    recall_at_100: float | None
    top_10_overlap: float | None
    rank_biased_overlap: float | None
    cosine: CosineSummary | None
    per_query: QueryScores | UnsetType = UNSET

    @property
    def by_query(self) -> QueryScores:
        """Scores of single queries, of a result that was not read from JSON."""
        assert self.per_query is not UNSET
        return self.per_query


@dataclass(frozen=True)
class WorstGroup:
    """The set or the language with the largest loss.

    Attributes:
        name: name of the set or language.
        queries: number of its queries.
        difference: mean difference in points.
        low, high: bounds of its 95 % interval.
    """

    name: str
    queries: int
    difference: float
    low: float
    high: float


class SettingResult(
    msgspec.Struct, frozen=True, kw_only=True, eq=False, rename={"decides_exit_status": "counts", "score": "found"}
):
    """Result of a setting over all sets of a task that have the same measure; every set has the same weight.

    Attributes:
        setting: the setting.
        measure: nDCG@10 of rankings, or Spearman's correlation of cosines with human scores.
        decides_exit_status: the exit status depends on the outcome.
        bytes: mean bytes of a document.
        reference, score: mean over the sets, of the reference in float32 at the same dimensions, and of the setting.
        retention: score divided by the reference's at full dimensions; None if that is 0.
        verdict: non-inferiority test of score - reference.
        worst_set, worst_language: groups with the largest loss.
        sets: result on each set.
    """

    setting: Setting
    measure: Measure
    decides_exit_status: bool
    bytes: int
    reference: float
    score: float
    retention: float | None
    verdict: NonInferiority
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
    """Size of a set and the reference's scores on it.

    Attributes:
        name: name of the set.
        kind: kind of the set.
        documents: number of documents; 0 for pairs.
        queries: number of queries or pairs.
        unjudged: number of queries without a relevant document, which are not measured.
        reference: score of the reference at full dimensions.
        recall_at_100: Recall@100 of the reference; None for pairs.
    """

    name: str
    kind: Kind
    documents: int
    queries: int
    unjudged: int
    reference: float
    recall_at_100: float | None


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Results of a task."""

    task: str
    sets: Sequence[SetDescription]
    settings: Sequence[SettingResult]
    cosines: Sequence[CosineGroups]


@dataclass(frozen=True)
class PooledResult:
    """Result of the same weights format and stored vectors over the sets of all tasks.

    Every set has the same weight. Both measures, nDCG@10 and Spearman's correlation, are in points.

    Attributes:
        weights: weights format.
        stored: dimensions and precision of documents.
        sets: number of sets.
        verdict: non-inferiority test of the mean difference.
    """

    weights: str
    stored: str
    sets: int
    verdict: NonInferiority


class MtebResult(msgspec.Struct, frozen=True, kw_only=True, rename={"score": "found"}):
    """Main scores of a task of mteb in points.

    Attributes:
        name: name of the task in mteb.
        task: task of the pack.
        variant: variant of the pack.
        reference, score: main score of the reference and of the variant.
        difference: score - reference.
    """

    name: str
    task: str
    variant: str
    reference: float
    score: float
    difference: float


class AccuracyReport(msgspec.Struct, frozen=True, kw_only=True, eq=False, rename={"skipped": "left_out"}):
    """Results of `bench accuracy`.

    Attributes:
        pack: name of the model.
        fingerprint: fingerprint of the pack's source.
        reference: kind of the reference.
        margin: loss in points that is allowed.
        limit: number of queries of each set; None: all.
        seed: seed of the bootstrap.
        passed: every outcome that decides the exit status is non-inferior.
        tasks: results of the tasks that have sets.
        pooled: results over several tasks; informational, as the loss of one task can be hidden by the others.
        skipped: sets that were not measured, with the reason.
        mteb: scores of mteb; informational.
    """

    pack: str
    fingerprint: str
    reference: ReferenceKind
    margin: float
    limit: int | None
    seed: int
    passed: bool
    tasks: Sequence[TaskResult]
    pooled: Sequence[PooledResult]
    skipped: Mapping[str, str]
    mteb: Sequence[MtebResult]
