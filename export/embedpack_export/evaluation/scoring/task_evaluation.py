"""Run of all sets of a task: vectors of the reference, then of each variant, and the codes computed from them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedpack import Embedder, Embeddings, MultiEmbeddings
from embedpack.pack.folder import Pack
from embedpack.pack.heads import single_metric, single_vectors
from embedpack.pack.task_codec import TaskCodec
from embedpack.progress import Progress
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.results import CosineGroups, SetResult, Setting
from embedpack_export.evaluation.scoring.encoding import (
    InputInfo,
    MultiVectorPair,
    VectorPair,
    encode_set,
    encode_set_multi,
    inspect_inputs,
    pooled,
)
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.scoring.set_scorers import (
    MultiVectorScorer,
    PairScorer,
    ReferenceScore,
    RetrievalScorer,
    token_cosines,
)
from embedpack_export.evaluation.sets.data import AnySet, PairSet, Side
from embedpack_export.metrics.cosines import row_cosines, summarise_by_label
from embedpack_export.reference.protocol import Reference

logger = logging.getLogger("embedpack")


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskEvaluation:
    """Settings of the run of a task."""

    pack: Pack
    task: str
    variants: Sequence[str]  # names of the variants to measure
    grid: Grid  # settings of each variant
    threads: int | None  # number of threads of the graphs; None: all cores
    against_full: bool = False  # compare truncated vectors with the reference's full ones
    cosine_groups: bool = True  # report cosines by language and length


@dataclass(frozen=True, eq=False)
class SetRun:
    """A set with its scorers, which hold the reference's vectors."""

    evaluation_set: AnySet
    single: RetrievalScorer | PairScorer | None  # scorer of single vectors; None: the pack has none
    multi: MultiVectorScorer | None  # scorer of multi-vectors; None: they are not measured
    # Tokens of the inputs of both sides; empty if nothing needs them.
    left_infos: Sequence[InputInfo]
    right_infos: Sequence[InputInfo]

    @property
    def full_reference(self) -> ReferenceScore:
        """Score of the reference at full dimensions, of single vectors if there are any."""
        scorer = self.single or self.multi
        assert scorer is not None
        return scorer.full_reference


@dataclass(frozen=True, eq=False)
class TaskScores:
    """Results of a run: its sets, the results of all settings, and the cosines of each variant."""

    sets: Sequence[SetRun]
    results: Sequence[SetResult]
    cosines: Sequence[CosineGroups]


def evaluate_task(evaluation: TaskEvaluation, sets: Sequence[AnySet], reference: Reference) -> TaskScores:
    """Encode all sets with the reference, then with one variant after the other, with one model in memory at a time.

    Raises:
        InputError, CapacityError: an input cannot be used.
        PackError: the pack is broken.
    """
    set_runs = [_set_run(evaluation, reference, evaluation_set) for evaluation_set in sets]
    reference.close()
    codec = TaskCodec.open(evaluation.pack, evaluation.task)
    results: list[SetResult] = []
    groups: list[CosineGroups] = []
    for variant in evaluation.variants:
        model = Embedder(evaluation.pack.folder, variant=variant, threads=evaluation.threads)
        cosines = []
        for set_run in set_runs:
            logger.info("%s: %s", variant, set_run.evaluation_set.name)
            vectors: VectorPair | MultiVectorPair | None = None
            if set_run.single is not None:
                vectors = encode_set(model, evaluation.task, set_run.evaluation_set)
                results += single_results(set_run.single, evaluation.grid.single(variant), vectors, codec)
            if set_run.multi is not None:
                multi = encode_set_multi(model, evaluation.task, set_run.multi.evaluation_set)
                settings = evaluation.grid.multi(variant)
                results += multi_results(set_run.multi, settings, multi, set_run.right_infos, codec)
                vectors = vectors or multi
            if evaluation.cosine_groups and vectors is not None:
                cosines.append(_labeled_cosines(set_run, vectors))
        if evaluation.cosine_groups:
            groups.append(_grouped(variant, cosines))
    return TaskScores(set_runs, results, groups)


def _set_run(evaluation: TaskEvaluation, reference: Reference, evaluation_set: AnySet) -> SetRun:
    """Open the scorers of a set with the vectors of the reference."""
    logger.info("reference (%s) of %s: %s", reference.kind, evaluation.task, evaluation_set.name)
    left, right = evaluation_set.sides
    # Tokens are needed for the length groups, and those of documents for token pooling.
    left_infos = _infos(evaluation, left) if evaluation.cosine_groups else []
    right_infos = _infos(evaluation, right) if evaluation.cosine_groups or evaluation.grid.has_multi else []
    if isinstance(evaluation_set, PairSet):
        single_vectors(evaluation.pack)
        vectors = VectorPair(*(_reference_vectors(evaluation, reference, side) for side in evaluation_set.sides))
        return SetRun(
            evaluation_set,
            PairScorer(evaluation_set, vectors, against_full=evaluation.against_full),
            None,
            left_infos,
            right_infos,
        )
    qrels = QrelsScorer(evaluation_set)
    multi = None
    if evaluation.grid.has_multi:
        multi_vectors = MultiVectorPair(
            *(_reference_multi_vectors(evaluation, reference, side) for side in evaluation_set.sides)
        )
        multi = MultiVectorScorer(evaluation_set, qrels, multi_vectors)
    single = None
    if evaluation.grid.has_single:
        vectors = VectorPair(*(_reference_vectors(evaluation, reference, side) for side in evaluation_set.sides))
        single = RetrievalScorer(evaluation_set, qrels, vectors, against_full=evaluation.against_full)
    return SetRun(evaluation_set, single, multi, left_infos, right_infos)


def _infos(evaluation: TaskEvaluation, side: Side) -> list[InputInfo]:
    return inspect_inputs(evaluation.pack, evaluation.task, side.inputs, side.prompt_name)


def _reference_vectors(evaluation: TaskEvaluation, reference: Reference, side: Side) -> Embeddings:
    manifest = evaluation.pack.manifest
    prompt = manifest.tasks[evaluation.task].prompt(side.prompt_name)
    codes = reference.single(evaluation.task, side.inputs, prompt)
    metric = single_metric(manifest, evaluation.task)
    return Embeddings(codes, "float32", codes.shape[1], manifest.space(evaluation.task), metric=metric)


def _reference_multi_vectors(evaluation: TaskEvaluation, reference: Reference, side: Side) -> MultiEmbeddings:
    manifest = evaluation.pack.manifest
    prompt = manifest.tasks[evaluation.task].prompt(side.prompt_name)
    rows = reference.multi(evaluation.task, side.inputs, prompt)
    offsets = offsets_of([len(vectors) for vectors in rows])
    return MultiEmbeddings(np.concatenate(rows), offsets, "float32", rows[0].shape[1], manifest.space(evaluation.task))


def single_results(
    scorer: RetrievalScorer | PairScorer, settings: Sequence[Setting], vectors: VectorPair, codec: TaskCodec
) -> Iterator[SetResult]:
    """Score settings of a variant with its float32 single vectors at full dimensions."""
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
    """Score settings of a variant with its float32 multi-vectors; `infos` are those of the documents."""
    by_factor = {
        factor: pooled(vectors.right, infos, factor) for factor in {setting.pool_factor for setting in settings}
    }
    with Progress(f"scoring multi-vectors of {scorer.evaluation_set.name}", len(settings)) as progress:
        for setting in settings:
            coded = codec.multi(by_factor[setting.pool_factor], setting.precision)
            yield scorer.score(setting, vectors.left, coded.truncate(setting.dimensions))
            progress.advance(1)


@dataclass(frozen=True, eq=False)
class _LabeledCosines:
    """Cosines of the inputs of a set, float64 [inputs], with the language and length group of each."""

    cosines: Float64
    languages: list[str]
    lengths: list[str]


def _labeled_cosines(set_run: SetRun, vectors: VectorPair | MultiVectorPair) -> _LabeledCosines:
    """Return the cosines of full vectors with the reference's, and the language and length group of each input.

    The cosine of multi-vectors is the mean of those of their tokens.
    """
    if isinstance(vectors, MultiVectorPair):
        assert set_run.multi is not None
        of_tokens = set_run.multi.reference
        pairs = [(vectors.left, of_tokens.left), (vectors.right, of_tokens.right)]
        cosines = np.concatenate([_mean_cosines(found, exact) for found, exact in pairs])
    else:
        assert set_run.single is not None
        of_single = set_run.single.reference
        both = [(vectors.left, of_single.left), (vectors.right, of_single.right)]
        cosines = np.concatenate([row_cosines(found.codes, exact.codes) for found, exact in both])
    lengths = [info.length for info in (*set_run.left_infos, *set_run.right_infos)]
    return _LabeledCosines(cosines, list(set_run.evaluation_set.languages), lengths)


def _mean_cosines(found: MultiEmbeddings, exact: MultiEmbeddings) -> Float64:
    """Mean cosine of the tokens of each input."""
    sums = np.add.reduceat(token_cosines(found, exact), found.offsets[:-1])
    return np.asarray(sums / found.counts, np.float64)


def _grouped(variant: str, parts: Sequence[_LabeledCosines]) -> CosineGroups:
    cosines = np.concatenate([part.cosines for part in parts])
    languages = [label for part in parts for label in part.languages]
    lengths = [label for part in parts for label in part.lengths]
    return CosineGroups(variant, summarise_by_label(cosines, languages), summarise_by_label(cosines, lengths))
