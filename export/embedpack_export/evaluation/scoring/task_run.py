"""Run of all sets of a task: vectors of the reference, then of each variant, and the codes computed from them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedpack import Embedder, Embeddings, MultiEmbeddings
from embedpack.pack.folder import Pack
from embedpack.pack.task_codec import TaskCodec
from embedpack.progress import Progress
from embedpack.vectors.codes import Float32
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack_export.evaluation.results import CosineGroups, SetResult, Setting
from embedpack_export.evaluation.scoring.encoding import InputInfo, encode, encode_multi, inspect_inputs, pooled
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.scoring.set_scorers import (
    MultiVectorPair,
    MultiVectorScorer,
    PairScorer,
    RetrievalScorer,
    VectorPair,
)
from embedpack_export.evaluation.sets.data import AnySet, PairSet
from embedpack_export.metrics.cosines import row_cosines, summarise_by_label
from embedpack_export.metrics.rankings import Float64
from embedpack_export.reference.protocol import Input, Reference

logger = logging.getLogger("embedpack")


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskRun:
    """Settings of the run of a task.

    Attributes:
        pack: the opened pack.
        task: one of its tasks.
        variants: names of the variants to measure.
        grid: settings of each variant.
        threads: number of threads of the graphs; None: all cores.
        against_full: compare truncated vectors with the reference's full ones.
        cosine_groups: report cosines by language and length.
    """

    pack: Pack
    task: str
    variants: Sequence[str]
    grid: Grid
    threads: int | None
    against_full: bool = False
    cosine_groups: bool = True


@dataclass(frozen=True, eq=False)
class SetInputs:
    """Inputs of one side of a set: queries or documents, first or second texts.

    Attributes:
        inputs: texts or image files.
        prompt_name: name of their prompt.
        infos: tokens of each input; empty if nothing needs them.
    """

    inputs: Sequence[Input]
    prompt_name: str
    infos: Sequence[InputInfo]


@dataclass(frozen=True, eq=False)
class SetRun:
    """A set with its inputs and its scorers, which hold the reference's vectors."""

    evaluation_set: AnySet
    left: SetInputs
    right: SetInputs
    single: RetrievalScorer | PairScorer
    multi: MultiVectorScorer | None


@dataclass(frozen=True, eq=False)
class TaskScores:
    """Results of a run: its sets, the results of all settings, and the cosines of each variant."""

    sets: Sequence[SetRun]
    results: Sequence[SetResult]
    cosines: Sequence[CosineGroups]


def run_task(run: TaskRun, sets: Sequence[AnySet], reference: Reference) -> TaskScores:
    """Encode all sets with the reference, then with one variant after the other, with one model in memory at a time.

    Raises:
        InputError, CapacityError: an input cannot be used.
        PackError: the pack is broken.
    """
    set_runs = [_set_run(run, reference, each) for each in sets]
    reference.close()
    codec = TaskCodec.open(run.pack, run.task)
    results: list[SetResult] = []
    groups: list[CosineGroups] = []
    for variant in run.variants:
        model = Embedder(run.pack.folder, variant=variant, threads=run.threads)
        cosines = []
        for each in set_runs:
            logger.info("%s: %s", variant, each.evaluation_set.name)
            left, right = (encode(model, run.task, side.inputs, side.prompt_name) for side in (each.left, each.right))
            results += single_results(each.single, run.grid.single(variant), VectorPair(left, right), codec)
            if run.cosine_groups:
                cosines.append(_labeled_cosines(each, left, right))
            if each.multi is not None:
                results += _multi_results(model, run, each, codec)
        if run.cosine_groups:
            groups.append(_grouped(variant, cosines))
    return TaskScores(set_runs, results, groups)


def _set_run(run: TaskRun, reference: Reference, each: AnySet) -> SetRun:
    """Open the scorers of a set with the vectors of the reference."""
    logger.info("reference (%s) of %s: %s", reference.kind, run.task, each.name)
    left, right = _set_inputs(run, each)
    manifest, task = run.pack.manifest, run.pack.manifest.tasks[run.task]
    space = manifest.space(run.task)
    vectors = VectorPair(
        *(
            Embeddings(
                reference.single(run.task, side.inputs, task.prompt(side.prompt_name)),
                "float32",
                manifest.dimensions,
                space,
            )
            for side in (left, right)
        )
    )
    if isinstance(each, PairSet):
        return SetRun(each, left, right, PairScorer(each, vectors, against_full=run.against_full), None)
    qrels = QrelsScorer(each)
    multi = None
    if run.grid.has_multi:
        multi_vectors = (
            _joined(reference.multi(run.task, side.inputs, task.prompt(side.prompt_name)), space)
            for side in (left, right)
        )
        multi = MultiVectorScorer(each, qrels, MultiVectorPair(*multi_vectors))
    return SetRun(each, left, right, RetrievalScorer(each, qrels, vectors, against_full=run.against_full), multi)


def _set_inputs(run: TaskRun, each: AnySet) -> tuple[SetInputs, SetInputs]:
    """Return both sides of a set; those whose tokens are needed, for length groups or for token pooling, inspected."""

    def side(inputs: Sequence[Input], prompt_name: str, *, inspect: bool) -> SetInputs:
        infos = inspect_inputs(run.pack, run.task, inputs, prompt_name) if inspect else []
        return SetInputs(inputs, prompt_name, infos)

    if isinstance(each, PairSet):
        # Both texts of a pair have the same role.
        return (
            side(each.first, "query", inspect=run.cosine_groups),
            side(each.second, "query", inspect=run.cosine_groups),
        )
    return (
        side(list(each.queries.values()), "query", inspect=run.cosine_groups),
        side(list(each.documents.values()), "passage", inspect=run.cosine_groups or run.grid.has_multi),
    )


def _joined(rows: Sequence[Float32], space: str) -> MultiEmbeddings:
    offsets = offsets_of([len(each) for each in rows])
    return MultiEmbeddings(np.concatenate(rows), offsets, "float32", rows[0].shape[1], space)


def single_results(
    scorer: RetrievalScorer | PairScorer, settings: Sequence[Setting], vectors: VectorPair, codec: TaskCodec
) -> Iterator[SetResult]:
    """Score settings of single vectors.

    Args:
        scorer: scorer of the set.
        settings: settings of one variant.
        vectors: its float32 vectors at full dimensions.
        codec: codec of the task.
    """
    with Progress(f"scoring {scorer.evaluation_set.name}", len(settings)) as progress:
        for setting in settings:
            coded = codec.single(vectors.right, setting.precision, setting.dimensions)
            yield scorer.score(setting, vectors.left, coded)
            progress.advance(1)


def multi_results(
    scorer: MultiVectorScorer,
    settings: Sequence[Setting],
    vectors: MultiVectorPair,
    infos: Sequence[InputInfo],
    codec: TaskCodec,
) -> Iterator[SetResult]:
    """Score settings of multi-vectors.

    Args:
        scorer: scorer of the set.
        settings: settings of one variant.
        vectors: its float32 multi-vectors.
        infos: tokens of the documents.
        codec: codec of the task.
    """
    by_factor = {
        factor: pooled(vectors.right, infos, factor) for factor in {setting.pool_factor for setting in settings}
    }
    with Progress(f"scoring multi-vectors of {scorer.evaluation_set.name}", len(settings)) as progress:
        for setting in settings:
            coded = codec.multi(by_factor[setting.pool_factor], setting.precision)
            yield scorer.score(setting, vectors.left, coded)
            progress.advance(1)


def _multi_results(model: Embedder, run: TaskRun, each: SetRun, codec: TaskCodec) -> Iterator[SetResult]:
    assert each.multi is not None
    assert model.variant is not None
    vectors = MultiVectorPair(
        *(encode_multi(model, run.task, side.inputs, side.prompt_name) for side in (each.left, each.right))
    )
    return multi_results(each.multi, run.grid.multi(model.variant), vectors, each.right.infos, codec)


def _labeled_cosines(each: SetRun, left: Embeddings, right: Embeddings) -> tuple[Float64, list[str], list[str]]:
    """Return the cosines of full vectors with the reference's, and the language and length group of each input."""
    exact = each.single.reference
    cosines = np.concatenate([row_cosines(left.codes, exact.left.codes), row_cosines(right.codes, exact.right.codes)])
    whole = each.evaluation_set
    languages = [whole.language] * len(cosines) if isinstance(whole, PairSet) else list(whole.languages)
    return cosines, languages, [info.length for info in (*each.left.infos, *each.right.infos)]


def _grouped(variant: str, parts: Sequence[tuple[Float64, list[str], list[str]]]) -> CosineGroups:
    cosines = np.concatenate([part[0] for part in parts])
    languages, lengths = ([label for part in parts for label in part[place]] for place in (1, 2))
    return CosineGroups(variant, summarise_by_label(cosines, languages), summarise_by_label(cosines, lengths))
