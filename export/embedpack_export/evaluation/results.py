"""What was found: figures in points (100 is perfect) and cosines, as they are written to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from embedpack.vectors.codes import Precision
from embedpack_export.evaluation.sets.data import Kind
from embedpack_export.metrics.cosines import CosineSummary
from embedpack_export.metrics.non_inferiority import NonInferiority
from embedpack_export.planning.settings import ReferenceKind

VectorKind = Literal["single", "multi"]
Measure = Literal["nDCG@10", "Spearman"]


@dataclass(frozen=True, order=True)
class Setting:
    """One way to use a pack: a variant, and what its documents are stored as; queries are float32.

    Attributes:
        variant: of the pack.
        vectors: one vector for each input, compared by cosine, or one for each token, compared by MaxSim.
        dimensions: of the vectors.
        precision: of documents; of pairs, of the second text.
        pool_factor: by how much the vectors of a document's tokens become fewer.
    """

    variant: str
    vectors: VectorKind
    dimensions: int
    precision: Precision
    pool_factor: int = 1

    @property
    def stored(self) -> str:
        """What a document is stored as."""
        pooled = f" / {self.pool_factor}" if self.pool_factor > 1 else ""
        kind = "multi " if self.vectors == "multi" else ""
        return f"{kind}{self.dimensions} {self.precision}{pooled}"


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """A setting on one set.

    Attributes:
        set: its name.
        queries: or pairs.
        reference, found: the measure, of the reference in float32 at the same dimensions, and of the setting.
        difference: found - reference.
        low, high: its 95 % interval.
        recall_at_100: of queries; None for pairs.
        top_10_overlap: share of the reference's first ten that are among the first ten; None for pairs.
        rank_biased_overlap: with the reference's ranking (p = 0.9); None for pairs.
        cosine: of vectors with the reference's: queries and documents, or coded documents; of each token for
            multi-vectors, None where these are pooled.
    """

    set: str
    queries: int
    reference: float
    found: float
    difference: float
    low: float
    high: float
    recall_at_100: float | None
    top_10_overlap: float | None
    rank_biased_overlap: float | None
    cosine: CosineSummary | None


@dataclass(frozen=True)
class Worst:
    """The set, or the language, that loses most: its mean difference with the 95 % interval."""

    name: str
    queries: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class SettingFigures:
    """A setting over all sets of a task that are judged by one measure; every set counts the same.

    Attributes:
        setting: see `Setting`.
        measure: nDCG@10 of rankings, or Spearman's correlation of cosines with human scores.
        counts: the exit status depends on it.
        bytes: of a document's vector, of all its vectors for multi-vectors (mean).
        reference, found: mean over the sets, of the reference in float32 at the same dimensions, and of the setting.
        retention: found over the reference in float32 at full dimensions; None where that is 0.
        verdict: on found - reference.
        worst_set, worst_language: what loses most.
        sets: each set by itself.
    """

    setting: Setting
    measure: Measure
    counts: bool
    bytes: int
    reference: float
    found: float
    retention: float | None
    verdict: NonInferiority
    worst_set: Worst
    worst_language: Worst
    sets: Sequence[SetFigures]


@dataclass(frozen=True)
class CosineGroups:
    """Cosines of a variant's full float32 vectors with the reference's, by language and by length in tokens."""

    variant: str
    languages: Mapping[str, CosineSummary]
    lengths: Mapping[str, CosineSummary]


@dataclass(frozen=True, kw_only=True)
class SetDescription:
    """What a set holds; `documents` of pairs is 0, `unjudged` counts queries left out as nothing is relevant to them.

    `recall_at_100` is that of the reference, None for pairs.
    """

    name: str
    kind: Kind
    documents: int
    queries: int
    unjudged: int
    reference: float
    recall_at_100: float | None


@dataclass(frozen=True, kw_only=True)
class TaskFigures:
    """All of one task."""

    task: str
    sets: Sequence[SetDescription]
    settings: Sequence[SettingFigures]
    cosines: Sequence[CosineGroups]


@dataclass(frozen=True)
class PooledFigures:
    """Settings of all tasks that use the same weights in the same way, over the sets of all tasks.

    Every set counts the same, whether it is judged by nDCG@10 or by Spearman's correlation: both are in points.
    """

    weights: str
    stored: str
    sets: int
    verdict: NonInferiority


@dataclass(frozen=True)
class MtebFigures:
    """Main score in points of a task of mteb, with one of the pack's tasks and variants, and that of the reference."""

    name: str
    task: str
    variant: str
    reference: float
    found: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """All of a pack.

    Attributes:
        pack: name of the model.
        fingerprint: of its source.
        reference: what it was compared with.
        margin: the largest loss in points that is put up with.
        limit: queries of each set, None: all.
        seed: of the bootstrap.
        passed: everything that counts is non-inferior.
        tasks: those with sets.
        pooled: over several tasks; they have no say in `passed`, as a task that loses may hide among others.
        left_out: sets that were not measured, and why.
        mteb: what mteb says; it has no say in `passed`.
    """

    pack: str
    fingerprint: str
    reference: ReferenceKind
    margin: float
    limit: int | None
    seed: int
    passed: bool
    tasks: Sequence[TaskFigures]
    pooled: Sequence[PooledFigures]
    left_out: Mapping[str, str]
    mteb: Sequence[MtebFigures]
