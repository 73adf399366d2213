"""All sets of a task through the reference and all its variants: vectors are made once, codes are made of them."""

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
from embedpack_export.evaluation.results import CosineGroups, Setting
from embedpack_export.evaluation.scoring.encoding import Seen, encode, encode_multi, look_at, pooled
from embedpack_export.evaluation.scoring.grid import Grid
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.scoring.set_scorers import (
    Answer,
    MultiSides,
    MultiTrial,
    PairTrial,
    RetrievalTrial,
    Sides,
)
from embedpack_export.evaluation.sets.data import AnySet, PairSet
from embedpack_export.metrics.cosines import row_cosines, summarise_by_label
from embedpack_export.metrics.rankings import Float64
from embedpack_export.reference.protocol import Input, Reference

logger = logging.getLogger("embedpack")


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskRun:
    """What is to be measured of a task.

    Attributes:
        pack: the opened pack.
        task: one of its tasks.
        variants: names of those that are measured.
        grid: settings of each.
        threads: of the graphs; None: all cores.
        against_full: truncated vectors are compared with the reference's whole ones.
    """

    pack: Pack
    task: str
    variants: Sequence[str]
    grid: Grid
    threads: int | None
    against_full: bool = False


@dataclass(frozen=True, eq=False)
class SetOfTask:
    """A set with the trials that wait for the variants, and what is known of its inputs."""

    item: AnySet
    single: RetrievalTrial | PairTrial
    multi: MultiTrial | None
    left: Sequence[Input]
    right: Sequence[Input]
    seen: tuple[Sequence[Seen], Sequence[Seen]]


def wanted_prompts(item: AnySet) -> tuple[str, str]:
    """Names of the prompts of both sides; both sides of a pair are of one kind."""
    return ("query", "query") if isinstance(item, PairSet) else ("query", "passage")


@dataclass(frozen=True, eq=False)
class TaskAnswers:
    """What came back: the sets with the reference's answers, those of all settings, and cosines of each variant."""

    sets: Sequence[SetOfTask]
    answers: Sequence[Answer]
    cosines: Sequence[CosineGroups]


def answers_of_task(run: TaskRun, sets: Sequence[AnySet], reference: Reference) -> TaskAnswers:
    """Ask the reference, then one variant after the other; never are two models in memory.

    Raises:
        InputError, CapacityError: an input cannot be used.
        PackError: the pack is broken.
    """
    waiting = [_ask_reference(run, reference, item) for item in sets]
    reference.close()
    codec = TaskCodec.open(run.pack, run.task)
    answers: list[Answer] = []
    groups: list[CosineGroups] = []
    for variant in run.variants:
        model = Embedder(run.pack.folder, variant=variant, threads=run.threads)
        cosines = []
        for item in waiting:
            logger.info("%s: %s", variant, item.item.name)
            left, right = (
                encode(model, run.task, inputs, wanted)
                for inputs, wanted in zip((item.left, item.right), wanted_prompts(item.item), strict=True)
            )
            answers += _answers(item, run.grid.single(variant), left, right, codec)
            cosines.append(_cosines(item, left, right))
            if item.multi is not None:
                answers += _multi_answers(model, run.task, item, run.grid.multi(variant), codec)
        groups.append(_grouped(variant, cosines))
    return TaskAnswers(waiting, answers, groups)


def _ask_reference(run: TaskRun, reference: Reference, item: AnySet) -> SetOfTask:
    """The trials of a set, with the reference's vectors."""
    logger.info("reference (%s) of %s: %s", reference.kind, run.task, item.name)
    left: Sequence[Input] = item.first if isinstance(item, PairSet) else list(item.queries.values())
    right: Sequence[Input] = item.second if isinstance(item, PairSet) else list(item.documents.values())
    both = list(zip((left, right), wanted_prompts(item), strict=True))
    space, manifest = run.pack.manifest.space(run.task), run.pack.manifest
    sides = Sides(
        *(
            Embeddings(
                reference.single(run.task, inputs, manifest.tasks[run.task].prompt(wanted)),
                "float32",
                manifest.dimensions,
                space,
            )
            for inputs, wanted in both
        )
    )
    first, second = (look_at(run.pack, run.task, inputs, wanted) for inputs, wanted in both)
    if isinstance(item, PairSet):
        return SetOfTask(
            item, PairTrial(item, sides, against_full=run.against_full), None, left, right, (first, second)
        )
    scorer = QrelsScorer(item)
    multi = None
    if run.grid.has_multi:
        vectors = (
            _joined(reference.multi(run.task, inputs, manifest.tasks[run.task].prompt(wanted)), space)
            for inputs, wanted in both
        )
        multi = MultiTrial(item, scorer, MultiSides(*vectors))
    single = RetrievalTrial(item, scorer, sides, against_full=run.against_full)
    return SetOfTask(item, single, multi, left, right, (first, second))


def _joined(rows: Sequence[Float32], space: str) -> MultiEmbeddings:
    offsets = offsets_of([len(item) for item in rows])
    return MultiEmbeddings(np.concatenate(rows), offsets, "float32", rows[0].shape[1], space)


def _answers(
    item: SetOfTask, settings: Sequence[Setting], left: Embeddings, right: Embeddings, codec: TaskCodec
) -> Iterator[Answer]:
    with Progress(f"judging {item.item.name}", len(settings)) as progress:
        for setting in settings:
            yield item.single.answer(setting, left, codec.single(right, setting.precision, setting.dimensions))
            progress.advance(1)


def _multi_answers(
    model: Embedder, task: str, item: SetOfTask, settings: Sequence[Setting], codec: TaskCodec
) -> Iterator[Answer]:
    assert item.multi is not None
    left, right = (
        encode_multi(model, task, inputs, wanted)
        for inputs, wanted in zip((item.left, item.right), wanted_prompts(item.item), strict=True)
    )
    fewer = {factor: pooled(right, item.seen[1], factor) for factor in {setting.pool_factor for setting in settings}}
    with Progress(f"judging multi-vectors of {item.item.name}", len(settings)) as progress:
        for setting in settings:
            yield item.multi.answer(setting, left, codec.multi(fewer[setting.pool_factor], setting.precision))
            progress.advance(1)


def _cosines(item: SetOfTask, left: Embeddings, right: Embeddings) -> tuple[Float64, list[str], list[str]]:
    """Cosines of the full vectors of both sides with those of the reference, their languages and lengths."""
    exact = item.single.reference
    values = np.concatenate([row_cosines(left.codes, exact.left.codes), row_cosines(right.codes, exact.right.codes)])
    languages = [item.item.language] * len(values) if isinstance(item.item, PairSet) else list(item.item.languages)
    return values, languages, [seen.length for side in item.seen for seen in side]


def _grouped(variant: str, parts: Sequence[tuple[Float64, list[str], list[str]]]) -> CosineGroups:
    values = np.concatenate([part[0] for part in parts])
    languages, lengths = ([label for part in parts for label in part[place]] for place in (1, 2))
    return CosineGroups(variant, summarise_by_label(values, languages), summarise_by_label(values, lengths))
