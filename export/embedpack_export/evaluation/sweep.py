"""Cost and loss of every setting of a pack, and the recommended one: the program of `embedpack bench sweep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from embedpack.errors import InputError
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.heads import single_vectors
from embedpack_export.evaluation.cost.measure import Cost, measure_costs
from embedpack_export.evaluation.options import EvaluationOptions
from embedpack_export.evaluation.results import Setting, SettingResult, VectorKind
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.task_evaluation import TaskEvaluation, evaluate_task
from embedpack_export.evaluation.sets.assignment import assign, variants_of
from embedpack_export.evaluation.sets.data import AnySet, RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.evaluation.sets.empty_text_filter import EmptyTextFilter
from embedpack_export.evaluation.summary import summarise
from embedpack_export.metrics.non_inferiority import NonInferiority
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.opening import open_reference
from embedpack_export.reference.protocol import Reference


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """Cost and loss of a setting."""

    setting: Setting
    bytes: int  # mean bytes of a document
    cost: Cost
    ndcg_at_10: float  # mean over the sets, in points
    test: NonInferiority  # non-inferiority test of the difference to the reference's full float32 vectors
    # No other setting of the same kind of vectors is at least as good in bytes, speed and nDCG@10, and better in one of
    # them.
    on_front: bool


@dataclass(frozen=True)
class _Point:
    """Cost and score of a setting."""

    vectors: VectorKind
    bytes: int
    tokens_per_s: float
    score: float

    def dominates(self, other: _Point) -> bool:
        """True if the other point, of the same kind of vectors, is worse in one figure and in none better."""
        return (
            self != other
            and self.vectors == other.vectors
            and self.bytes <= other.bytes
            and self.tokens_per_s >= other.tokens_per_s
            and self.score >= other.score
        )


@dataclass(frozen=True)
class Recommendation:
    """The cheapest settings of one kind of vectors."""

    vectors: VectorKind  # single or multi-vectors
    by_estimate: Setting | None  # cheapest setting whose measured loss is within the margin; None if there is none
    by_bound: Setting | None  # cheapest setting that is non-inferior; None if there is none


@dataclass(frozen=True)
class TaskSweep:
    """All settings of a task, cheapest first, and the recommended ones."""

    task: str
    sets: Sequence[str]
    reference_ndcg_at_10: Mapping[str, float]
    rows: Sequence[SweepRow]
    recommended: Sequence[Recommendation]


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """Results of `bench sweep`; `passed`: each task and kind of vectors has a setting within the margin."""

    model: str
    fingerprint: str
    reference: ReferenceKind
    margin: float
    limit: int | None
    seed: int
    passed: bool
    tasks: Sequence[TaskSweep]
    skipped: Mapping[str, str]


def sweep(options: EvaluationOptions) -> SweepReport:
    """Measure all settings of a pack; `options.margin` is in points of nDCG@10.

    Raises:
        InputError: an option or a set cannot be used, or there is no set of queries and documents.
        PackError: the pack is broken.
        CheckpointError: the checkpoint of the reference, or an adapter, cannot be read.
        MissingExtraError: ir-measures, scipy, or for a torch reference torch, transformers and peft, are missing.
    """
    pack = read_pack(options.pack)
    empty = EmptyTextFilter.of(pack) if options.on_empty == "skip" else None
    sets = [
        evaluation_set
        for evaluation_set in read_sets(options.data, options.sets, options.limit, empty)
        if isinstance(evaluation_set, RetrievalSet)
    ]
    if not sets:
        raise InputError(f"{options.data}: no set of queries and documents; a sweep measures rankings")
    assigned = assign(sets, pack.manifest, options.tasks, options.variants)
    reference = open_reference(pack, options.reference, options.threads)
    tasks = [_task(options, pack, task, chosen, reference) for task, chosen in assigned.by_task.items()]
    return SweepReport(
        model=pack.manifest.name,
        fingerprint=pack.manifest.source.fingerprint,
        reference=reference.kind,
        margin=options.margin,
        limit=options.limit,
        seed=options.seed,
        passed=all(choice.by_estimate is not None for task in tasks for choice in task.recommended),
        tasks=tasks,
        skipped=assigned.skipped,
    )


def _task(options: EvaluationOptions, pack: Pack, task: str, sets: Sequence[AnySet], reference: Reference) -> TaskSweep:
    single_vectors(pack)
    evaluation = TaskEvaluation(
        pack=pack,
        task=task,
        variants=variants_of(pack.manifest, task, options.variants),
        grid=Grid(pack, multi=options.multi),
        threads=options.threads,
        against_full=True,
        cosine_groups=False,
    )
    scores = evaluate_task(evaluation, sets, reference)
    costs = measure_costs(pack, task, evaluation.variants, _texts(sets), options.threads)
    results = summarise(
        scores.results,
        margin=options.margin,
        seed=options.seed,
        decides_exit_status=evaluation.grid.decides_exit_status,
    )
    rows = sorted(_rows(results, costs), key=_price)
    kinds: list[VectorKind] = ["single", "multi"] if evaluation.grid.has_multi else ["single"]
    return TaskSweep(
        task=task,
        sets=[evaluation_set.name for evaluation_set in sets],
        reference_ndcg_at_10={
            set_run.evaluation_set.name: round(set_run.full_reference.score, 4) for set_run in scores.sets
        },
        rows=rows,
        recommended=[recommend(rows, kind) for kind in kinds],
    )


def _texts(sets: Sequence[AnySet]) -> list[str]:
    """Return the documents of all sets in turns; queries instead of documents that are images."""
    columns = []
    for evaluation_set in sets:
        assert isinstance(evaluation_set, RetrievalSet)
        texts = [text for text in evaluation_set.documents.values() if isinstance(text, str)]
        columns.append(texts or list(evaluation_set.queries.values()))
    return [column[row] for row in range(max(map(len, columns))) for column in columns if row < len(column)]


def _rows(results: Sequence[SettingResult], costs: Mapping[str, Cost]) -> list[SweepRow]:
    points = [
        _Point(result.setting.vectors, result.bytes, costs[result.setting.variant].tokens_per_s, result.score)
        for result in results
    ]
    return [
        SweepRow(
            setting=result.setting,
            bytes=result.bytes,
            cost=costs[result.setting.variant],
            ndcg_at_10=result.score,
            test=result.test,
            on_front=not any(other.dominates(point) for other in points),
        )
        for result, point in zip(results, points, strict=True)
    ]


def _price(row: SweepRow) -> tuple[str, int, float]:
    return row.setting.vectors, row.bytes, -row.cost.tokens_per_s


def recommend(rows: Sequence[SweepRow], vectors: VectorKind) -> Recommendation:
    """Choose the cheapest settings within the margin, by the measured loss and by the bound of its interval."""
    cheapest = sorted((row for row in rows if row.setting.vectors == vectors), key=_price)

    def first(fits: Callable[[NonInferiority], bool]) -> Setting | None:
        return next((row.setting for row in cheapest if fits(row.test)), None)

    return Recommendation(
        vectors,
        first(lambda test: test.difference >= -test.margin),
        first(lambda test: test.outcome == "non-inferior"),
    )
