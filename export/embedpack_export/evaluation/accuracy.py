"""The program behind `embedpack bench accuracy`: every variant, truncation and precision beside the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.mteb_scores import mteb_scores
from embedpack_export.evaluation.results import AccuracyReport, SetDescription, TaskFigures
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.task_run import SetOfTask, TaskAnswers, TaskRun, answers_of_task
from embedpack_export.evaluation.sets.assignment import assign, variants_of
from embedpack_export.evaluation.sets.data import PairSet, RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.evaluation.summary import summarise, summarise_tasks
from embedpack_export.reference.opening import ReferenceSource, open_reference


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions:
    """What is measured.

    Attributes:
        pack: its folder.
        data: folder of the sets.
        sets: names of sets; empty: all.
        tasks: each with every set; empty: every set with the task of its kind.
        variants: names; empty: all.
        precisions, truncate_dims: what documents are stored as. Both empty: everything, and full float32 vectors count
            for the verdict. Else what is named is measured and counts; what is not is float32, or the full dimension.
        reference: where the reference comes from.
        multi: multi-vectors are measured where the pack has them.
        margin: largest loss in points that is put up with.
        limit: queries of each set; None: all.
        seed: of the bootstrap.
        threads: of the graphs; None: all cores.
        mteb: names of tasks of mteb that are measured too.
    """

    pack: Path
    data: Path
    reference: ReferenceSource
    sets: Sequence[str] = ()
    tasks: Sequence[str] = ()
    variants: Sequence[str] = ()
    precisions: Sequence[str] = ()
    truncate_dims: Sequence[int] = ()
    multi: bool = True
    margin: float
    limit: int | None = None
    seed: int
    threads: int | None = None
    mteb: Sequence[str] = ()


def measure_accuracy(options: AccuracyOptions) -> AccuracyReport:
    """Measure a pack.

    Raises:
        InputError: an option or a set cannot be used, or the pack does not belong to the reference.
        PackError: the pack is broken.
        CheckpointError: the checkpoint of the reference, or an adapter, cannot be read.
        MissingExtraError: ir-measures or scipy are missing, mteb where it is asked, or torch, transformers or peft for
            the torch reference.
    """
    if not options.margin > 0:
        raise InputError(
            f"--max-loss is {options.margin}; a margin is above 0, as no data can show a loss of exactly 0"
        )
    pack = read_pack(options.pack)
    grid = Grid(pack.manifest, options.precisions, options.truncate_dims, multi=options.multi)
    sets = read_sets(options.data, options.sets, options.limit)
    assigned = assign(sets, pack.manifest, options.tasks, options.variants)
    reference = open_reference(pack, options.reference, options.threads)
    tasks, counting = [], []
    for task, chosen in assigned.by_task.items():
        variants = variants_of(pack.manifest, task, options.variants)
        run = TaskRun(pack=pack, task=task, variants=variants, grid=grid, threads=options.threads)
        found = answers_of_task(run, chosen, reference)
        tasks.append(_task(task, found, grid, options))
        counting += [answer for answer in found.answers if grid.counts(answer.setting)]
    weights = {name: variant.weights for name, variant in pack.manifest.variants.items()}
    return AccuracyReport(
        pack=pack.manifest.name,
        fingerprint=pack.manifest.source.fingerprint,
        reference=reference.kind,
        margin=options.margin,
        limit=options.limit,
        seed=options.seed,
        passed=all(item.verdict.outcome == "non-inferior" for task in tasks for item in task.settings if item.counts),
        tasks=tasks,
        pooled=summarise_tasks(counting, weights, margin=options.margin, seed=options.seed) if len(tasks) > 1 else [],
        left_out=assigned.skipped,
        mteb=mteb_scores(pack, reference, options.mteb, options.variants, options.threads),
    )


def _task(task: str, found: TaskAnswers, grid: Grid, options: AccuracyOptions) -> TaskFigures:
    return TaskFigures(
        task=task,
        sets=[_described(item) for item in found.sets],
        settings=summarise(found.answers, margin=options.margin, seed=options.seed, counts=grid.counts),
        cosines=found.cosines,
    )


def _described(item: SetOfTask) -> SetDescription:
    pairs = isinstance(item.item, PairSet)
    reference, recall = item.single.whole
    return SetDescription(
        name=item.item.name,
        kind=item.item.kind,
        documents=0 if pairs else len(item.right),
        queries=len(item.left),
        unjudged=item.item.unjudged if isinstance(item.item, RetrievalSet) else 0,
        reference=round(reference, 4),
        recall_at_100=None if recall is None else round(recall, 4),
    )
