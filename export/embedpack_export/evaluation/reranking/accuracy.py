"""Accuracy of every variant of a reranker: the program of `embedpack bench accuracy` for packs that give scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedpack import Reranker
from embedpack.errors import InputError, OptionError, unknown
from embedpack.pack.folder import Pack, read_pack
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.reranking.candidates import Candidates, find_candidates
from embedpack_export.evaluation.reranking.options import RerankingOptions
from embedpack_export.evaluation.reranking.references import score_reference
from embedpack_export.evaluation.reranking.results import Gain, RerankedSet, RerankingReport, VariantResult
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.sets.assignment import variants_of
from embedpack_export.evaluation.sets.data import AnySet, RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.metrics.bootstrap import Interval, interval, resampled_means, set_generator
from embedpack_export.metrics.non_inferiority import NonInferiority, non_inferiority
from embedpack_export.metrics.score_agreement import kendall_tau
from embedpack_export.planning.settings import ReferenceKind


@dataclass(frozen=True, eq=False)
class _Measured:
    """Scores of the candidates of one set: of the reference, and of each variant, float32 [queries, depth]."""

    candidates: Candidates
    reference: Float32
    variants: Mapping[str, Float32]


@dataclass(frozen=True, eq=False)
class _Run:
    """Scores of all sets, and the kind of their reference."""

    reference: ReferenceKind
    sets: Sequence[_Measured]


@dataclass(frozen=True)
class _Sample:
    """Test settings: margin in points, seed of the bootstrap."""

    margin: float
    seed: int


def measure_reranking(options: RerankingOptions) -> RerankingReport:
    """Rerank the candidates of every retrieval set with the reference and with each variant.

    Raises:
        InputError: an option or a set cannot be used, or the pack does not belong to the reference.
        PackError: a pack is broken.
        CheckpointError: the checkpoint of the reference, or an adapter, cannot be read.
        MissingExtraError: ir-measures is missing, or torch, transformers or peft for the torch reference.
    """
    evaluation, pack = options.evaluation, read_pack(options.evaluation.pack)
    sets = _texts(read_sets(evaluation.data, evaluation.sets, evaluation.limit))
    found = find_candidates(options.first_stage, sets, evaluation.threads)
    run = _measure(pack, options, found)
    sample = _Sample(evaluation.margin, evaluation.seed)
    results = [_set_result(each, sample) for each in run.sets]
    tests = _tests(run.sets, sample)
    return RerankingReport(
        model=pack.manifest.name,
        fingerprint=pack.manifest.source.fingerprint,
        first_stage=read_pack(options.first_stage.pack).manifest.name,
        depth=options.first_stage.depth,
        reference=run.reference,
        margin=evaluation.margin,
        limit=evaluation.limit,
        seed=evaluation.seed,
        passed=all(test.outcome == "non-inferior" for test in tests.values()),
        tests=tests,
        sets=results,
    )


def _texts(sets: Sequence[AnySet]) -> list[RetrievalSet]:
    """Sets whose documents are texts; InputError if there is none."""
    found = [each for each in sets if isinstance(each, RetrievalSet) and each.kind != "visual"]
    if not found:
        raise InputError(
            "no set is left to measure: a reranker is measured on sets of queries and documents that are texts"
        )
    return found


def _measure(pack: Pack, options: RerankingOptions, found: Sequence[Candidates]) -> _Run:
    """Score all candidates with the reference and the variants of a task, with one model in memory at a time."""
    evaluation = options.evaluation
    task = _task(pack, evaluation.tasks)
    variants = variants_of(pack.manifest, task, evaluation.variants)
    by_variant = {}
    for name in variants:
        with Reranker(pack.folder, variant=name, threads=evaluation.threads) as model:
            by_variant[name] = [each.scores(model.score) for each in found]
    reference = score_reference(pack, task, evaluation.reference, evaluation.threads)
    exact = [each.scores(reference.score) for each in found]
    measured = [
        _Measured(candidates, scores, {name: by_variant[name][number] for name in variants})
        for number, (candidates, scores) in enumerate(zip(found, exact, strict=True))
    ]
    return _Run(reference.kind, measured)


def _task(pack: Pack, named: Sequence[str]) -> str:
    """The task to measure, the only one of a pack if none is named; OptionError if there are several."""
    tasks = list(pack.manifest.tasks)
    if len(named) > 1 or (not named and len(tasks) > 1):
        raise OptionError(f"{pack.folder}: a reranker is measured with one task; pass one --task of {', '.join(tasks)}")
    if named and named[0] not in tasks:
        raise OptionError(unknown("task", named[0], tasks))
    return named[0] if named else tasks[0]


def _set_result(measured: _Measured, sample: _Sample) -> RerankedSet:
    candidates = measured.candidates
    evaluation_set = candidates.evaluation_set
    qrels = QrelsScorer(evaluation_set)
    first = qrels.scores(candidates.ranks)
    exact = qrels.scores(candidates.reranked(measured.reference)).ndcg
    variants = []
    for name, scores in measured.variants.items():
        ndcg = qrels.scores(candidates.reranked(scores)).ndcg
        taus = [kendall_tau(*rows) for rows in zip(measured.reference, scores, strict=True)]
        difference = ndcg - exact
        bounds = _interval(difference, evaluation_set.name, sample.seed)
        variants.append(
            VariantResult(
                variant=name,
                gain=_gain(ndcg, first.ndcg, evaluation_set.name, sample.seed),
                test=non_inferiority(float(difference.mean()), bounds, [len(difference)], sample.margin),
                kendall=float(np.mean(taus)),
                kendall_p1=float(np.quantile(taus, 0.01)),
                largest_difference=float(np.abs(scores - measured.reference).max()),
            )
        )
    return RerankedSet(
        name=evaluation_set.name,
        queries=len(evaluation_set.queries),
        documents=len(evaluation_set.documents),
        first_stage=float(first.ndcg.mean()),
        recall=float(first.recall.mean()),
        reference=_gain(exact, first.ndcg, evaluation_set.name, sample.seed),
        variants=variants,
    )


def _gain(ndcg: Float64, first: Float64, name: str, seed: int) -> Gain:
    bounds = _interval(ndcg - first, name, seed)
    return Gain(ndcg=float(ndcg.mean()), difference=float((ndcg - first).mean()), low=bounds.low, high=bounds.high)


def _interval(differences: Float64, name: str, seed: int) -> Interval:
    return interval(resampled_means(differences[:, None], set_generator(name, seed))[:, 0])


def _tests(measured: Sequence[_Measured], sample: _Sample) -> dict[str, NonInferiority]:
    """Test of each variant on the mean of the sets, each with the same weight."""
    scorers = [QrelsScorer(each.candidates.evaluation_set) for each in measured]
    tests = {}
    for name in measured[0].variants:
        differences = [
            scorer.scores(each.candidates.reranked(each.variants[name])).ndcg
            - scorer.scores(each.candidates.reranked(each.reference)).ndcg
            for scorer, each in zip(scorers, measured, strict=True)
        ]
        resampled = [
            resampled_means(difference[:, None], set_generator(each.candidates.evaluation_set.name, sample.seed))[:, 0]
            for difference, each in zip(differences, measured, strict=True)
        ]
        tests[name] = non_inferiority(
            float(np.mean([difference.mean() for difference in differences])),
            interval(np.mean(resampled, axis=0)),
            [len(difference) for difference in differences],
            sample.margin,
        )
    return tests
