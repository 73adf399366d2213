"""Accuracy of every variant, truncation and precision of a pack: the program of `embedpack bench accuracy`."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.mteb_scores import mteb_scores
from embedpack_export.evaluation.options import EvaluationOptions
from embedpack_export.evaluation.results import AccuracyReport, SetDescription, TaskResult
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.task_evaluation import SetRun, TaskEvaluation, TaskScores, evaluate_task
from embedpack_export.evaluation.sets.assignment import assign, variants_of
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.evaluation.sets.empty_text_filter import EmptyTextFilter
from embedpack_export.evaluation.summary import summarise, summarise_tasks
from embedpack_export.reference.opening import open_reference


def measure_accuracy(
    options: EvaluationOptions,
    *,
    precisions: Sequence[str] = (),
    truncate_dims: Sequence[int] = (),
    mteb: Sequence[str] = (),
) -> AccuracyReport:
    """Measure the accuracy of a pack.

    Named precisions and truncations decide the exit status. If there are none, all settings are measured, and full
    float32 vectors decide (see `Grid`). `mteb` has the names of tasks of mteb to score, too.

    Raises:
        InputError: an option or a set cannot be used, or the pack does not belong to the reference.
        PackError: the pack is broken.
        CheckpointError: the checkpoint of the reference, or an adapter, cannot be read.
        MissingExtraError: ir-measures or scipy are missing; mteb, if a task of it is named; or torch, transformers or
            peft for the torch reference.
    """
    pack = read_pack(options.pack)
    grid = Grid(pack, precisions, truncate_dims, multi=options.multi)
    empty = EmptyTextFilter.of(pack) if options.on_empty == "skip" else None
    sets = read_sets(options.data, options.sets, options.limit, empty)
    assigned = assign(sets, pack.manifest, options.tasks, options.variants)
    reference = open_reference(pack, options.reference, options.threads)
    tasks, deciding = [], []
    for task, chosen in assigned.by_task.items():
        variants = variants_of(pack.manifest, task, options.variants)
        evaluation = TaskEvaluation(pack=pack, task=task, variants=variants, grid=grid, threads=options.threads)
        scores = evaluate_task(evaluation, chosen, reference)
        tasks.append(_task_result(task, scores, grid, options))
        deciding += [result for result in scores.results if grid.decides_exit_status(result.by_query.setting)]
    weights = {name: variant.weights for name, variant in pack.manifest.variants.items()}
    outcomes = [result.test.outcome for task in tasks for result in task.settings if result.decides_exit_status]
    return AccuracyReport(
        model=pack.manifest.name,
        fingerprint=pack.manifest.source.fingerprint,
        reference=reference.kind,
        margin=options.margin,
        limit=options.limit,
        seed=options.seed,
        passed=all(outcome == "non-inferior" for outcome in outcomes),
        tasks=tasks,
        combined=summarise_tasks(deciding, weights, margin=options.margin, seed=options.seed) if len(tasks) > 1 else [],
        skipped=assigned.skipped,
        mteb=mteb_scores(pack, reference, mteb, options.variants, options.threads),
    )


def _task_result(task: str, scores: TaskScores, grid: Grid, options: EvaluationOptions) -> TaskResult:
    return TaskResult(
        task=task,
        sets=[_description(set_run) for set_run in scores.sets],
        settings=summarise(
            scores.results, margin=options.margin, seed=options.seed, decides_exit_status=grid.decides_exit_status
        ),
        cosines=scores.cosines,
    )


def _description(set_run: SetRun) -> SetDescription:
    evaluation_set = set_run.evaluation_set
    reference = set_run.full_reference
    return SetDescription(
        name=evaluation_set.name,
        kind=evaluation_set.kind,
        documents=len(evaluation_set.documents) if isinstance(evaluation_set, RetrievalSet) else 0,
        queries=len(evaluation_set.sides[0].inputs),
        unjudged=evaluation_set.unjudged if isinstance(evaluation_set, RetrievalSet) else 0,
        empty=evaluation_set.empty,
        reference=round(reference.score, 4),
        recall_at_100=None if reference.recall_at_100 is None else round(reference.recall_at_100, 4),
    )
