"""The program behind `embedpack bench sweep`: what each setting of a pack costs and loses, and which one to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError
from embedpack.pack.folder import Pack, read_pack
from embedpack_export.evaluation.cost.measure import Cost, measure_costs
from embedpack_export.evaluation.results import Setting, SettingFigures, VectorKind
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.task_run import TaskRun, answers_of_task
from embedpack_export.evaluation.sets.assignment import assign, variants_of
from embedpack_export.evaluation.sets.data import AnySet, RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.evaluation.summary import summarise
from embedpack_export.metrics.non_inferiority import NonInferiority
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.opening import ReferenceSource, open_reference
from embedpack_export.reference.protocol import Reference


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What is measured; fields that are not here are those of `accuracy.AccuracyOptions`.

    Attributes:
        max_loss: largest loss in points of nDCG@10 that a recommended setting may have.
    """

    pack: Path
    data: Path
    reference: ReferenceSource
    sets: Sequence[str] = ()
    tasks: Sequence[str] = ()
    variants: Sequence[str] = ()
    multi: bool = True
    max_loss: float
    limit: int | None = None
    seed: int
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One setting.

    Attributes:
        setting: see `Setting`.
        bytes: of a document's vector, or of all its vectors (mean).
        cost: of its variant.
        ndcg_at_10: mean over the sets, in points.
        verdict: on the difference to whole float32 vectors of the reference.
        on_front: no other setting with this kind of vectors is at least as good in bytes, speed and nDCG@10, and better
            in one.
    """

    setting: Setting
    bytes: int
    cost: Cost
    ndcg_at_10: float
    verdict: NonInferiority
    on_front: bool


@dataclass(frozen=True)
class Recommendation:
    """The cheapest settings of one kind of vectors.

    Attributes:
        vectors: single or multi.
        by_estimate: whose measured loss is within the limit.
        by_bound: for which the lower bound of the interval is, too; None: there is none.
    """

    vectors: VectorKind
    by_estimate: Setting | None
    by_bound: Setting | None


@dataclass(frozen=True)
class TaskSweep:
    """All settings of a task, cheapest first, and what to take."""

    task: str
    sets: Sequence[str]
    reference_ndcg_at_10: Mapping[str, float]
    rows: Sequence[SweepRow]
    recommended: Sequence[Recommendation]


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """All of a pack; `found` says that there is a setting to recommend for each task and kind of vectors."""

    pack: str
    fingerprint: str
    reference: ReferenceKind
    max_loss: float
    limit: int | None
    seed: int
    found: bool
    tasks: Sequence[TaskSweep]
    left_out: Mapping[str, str]


def sweep(options: SweepOptions) -> SweepReport:
    """Measure a pack.

    Raises:
        InputError: an option or a set cannot be used, or there is no set of queries and documents.
        PackError: the pack is broken.
        CheckpointError: the checkpoint of the reference, or an adapter, cannot be read.
        MissingExtraError: ir-measures, scipy, or for a torch reference torch, transformers and peft, are missing.
    """
    if not options.max_loss > 0:
        raise InputError(f"--max-loss is {options.max_loss}; it must be above 0")
    pack = read_pack(options.pack)
    sets = [item for item in read_sets(options.data, options.sets, options.limit) if isinstance(item, RetrievalSet)]
    if not sets:
        raise InputError(f"{options.data}: no set of queries and documents; a sweep measures rankings")
    assigned = assign(sets, pack.manifest, options.tasks, options.variants)
    reference = open_reference(pack, options.reference, options.threads)
    tasks = [_task(options, pack, task, chosen, reference) for task, chosen in assigned.by_task.items()]
    return SweepReport(
        pack=pack.manifest.name,
        fingerprint=pack.manifest.source.fingerprint,
        reference=reference.kind,
        max_loss=options.max_loss,
        limit=options.limit,
        seed=options.seed,
        found=all(item.by_estimate is not None for task in tasks for item in task.recommended),
        tasks=tasks,
        left_out=assigned.skipped,
    )


def _task(options: SweepOptions, pack: Pack, task: str, sets: Sequence[AnySet], reference: Reference) -> TaskSweep:
    run = TaskRun(
        pack=pack,
        task=task,
        variants=variants_of(pack.manifest, task, options.variants),
        grid=Grid(pack.manifest, multi=options.multi),
        threads=options.threads,
        against_full=True,
    )
    found = answers_of_task(run, sets, reference)
    costs = measure_costs(pack, task, run.variants, _texts(sets), options.threads)
    figures = summarise(found.answers, margin=options.max_loss, seed=options.seed, counts=run.grid.counts)
    rows = sorted(_rows(figures, costs), key=_price)
    kinds: list[VectorKind] = ["single", "multi"] if run.grid.has_multi else ["single"]
    return TaskSweep(
        task=task,
        sets=[item.name for item in sets],
        reference_ndcg_at_10={item.item.name: round(item.single.whole[0], 4) for item in found.sets},
        rows=rows,
        recommended=[recommend(rows, kind) for kind in kinds],
    )


def _texts(sets: Sequence[AnySet]) -> list[str]:
    """Documents of all sets in turns; queries where documents are images."""
    columns = []
    for item in sets:
        assert isinstance(item, RetrievalSet)
        texts = [text for text in item.documents.values() if isinstance(text, str)]
        columns.append(texts or list(item.queries.values()))
    return [column[row] for row in range(max(map(len, columns))) for column in columns if row < len(column)]


def _rows(figures: Sequence[SettingFigures], costs: Mapping[str, Cost]) -> list[SweepRow]:
    points = [
        (item.setting.vectors, item.bytes, -costs[item.setting.variant].tokens_per_s, -item.found) for item in figures
    ]
    return [
        SweepRow(
            setting=item.setting,
            bytes=item.bytes,
            cost=costs[item.setting.variant],
            ndcg_at_10=item.found,
            verdict=item.verdict,
            on_front=not any(_beats(other, point) for other in points),
        )
        for item, point in zip(figures, points, strict=True)
    ]


def _beats(other: tuple[str, float, float, float], point: tuple[str, float, float, float]) -> bool:
    """Whether another point of the same kind is lower in one figure and in none higher."""
    return other[0] == point[0] and other != point and all(a <= b for a, b in zip(other[1:], point[1:], strict=True))


def _price(row: SweepRow) -> tuple[str, int, float]:
    return row.setting.vectors, row.bytes, -row.cost.tokens_per_s


def recommend(rows: Sequence[SweepRow], vectors: VectorKind) -> Recommendation:
    """The first of the cheapest rows whose loss is within the limit, once by the estimate, once by the bound.

    Args:
        rows: of all kinds.
        vectors: the kind that is wanted.
    """
    cheapest = sorted((row for row in rows if row.setting.vectors == vectors), key=_price)

    def first(fits: Callable[[NonInferiority], bool]) -> Setting | None:
        return next((row.setting for row in cheapest if fits(row.verdict)), None)

    return Recommendation(
        vectors,
        first(lambda verdict: verdict.difference >= -verdict.margin),
        first(lambda verdict: verdict.outcome == "non-inferior"),
    )
