"""Accuracy check of a pack that gives scores: they and the order of the documents, compared with the reference's."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack import AccuracyError, InputError, PackError, Reranker
from embedpack.engine.options import ScoreSettings
from embedpack.pack.accuracy_records import Check, ScoreAgreement
from embedpack.pack.folder import read_pack
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.budget import Budget, are_damaged_scores
from embedpack_export.accuracy_check.check import CheckResult, ReferenceRecord
from embedpack_export.accuracy_check.figures import TaskAccuracy, VariantAccuracy
from embedpack_export.accuracy_check.self_retrieval import group_ranking_loss
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup
from embedpack_export.reference.score_reference import ChosenScores
from embedpack_export.stages.score_records import by_query, recorded_agreement


def check_scores(folder: Path, plan: ExportPlan, references: ChosenScores, budget: Budget) -> CheckResult:
    """Compare every task of every variant of the finished pack in a folder with the main reference.

    Raises:
        PackError: the pack is broken.
        AccuracyError: a variant returns no scores.
        CheckpointError, InputError, CapacityError: the reference fails.
    """
    pack, reference = read_pack(folder), references.main
    expected = {task: reference.scores(task, groups) for task, groups in references.groups.items()}
    reference.close()
    variants: dict[str, VariantAccuracy] = {}
    failures: list[str] = []
    for name, variant in pack.manifest.variants.items():
        assert variant.task is not None
        groups = references.groups[variant.task]
        found = _pack_scores(folder, name, groups)
        check = _Comparison(groups, expected[variant.task], plan.seed).check(
            found, variant.weights, budget, reference.kind
        )
        failures += [] if check.outcome != "over budget" else [_failure(name, variant.task, check)]
        variants[name] = VariantAccuracy(
            weights=variant.weights,
            adapters=variant.adapters,
            bytes=pack.manifest.variant_bytes(name),
            tasks={variant.task: TaskAccuracy(check=check, codes=())},
        )
    record = ReferenceRecord(reference.kind, reference.packages, references.notes)
    return CheckResult(record, max(map(len, references.groups.values())), variants, failures)


def _pack_scores(folder: Path, variant: str, groups: Sequence[ScoreGroup]) -> Float32:
    """Scores of a variant of the pack, float32 [documents of all groups]."""
    model = Reranker(folder, variant=variant, prepared=False)
    try:
        with model.stats(sum(len(group.documents) for group in groups)) as stats:
            scores = [model.score_part(group.query, [*group.documents], ScoreSettings(), stats) for group in groups]
    except (InputError, PackError) as cause:
        # The reference accepted these texts.
        raise AccuracyError(f"{variant}: no scores: {cause}; the weights are damaged") from cause
    del model
    gc.collect()
    return np.concatenate(scores)


@dataclass(frozen=True)
class _Comparison:
    """Groups of a task with the reference's scores."""

    groups: Sequence[ScoreGroup]
    expected: Float32
    seed: int

    def check(self, found: Float32, weights: WeightsFormat, budget: Budget, reference: str) -> Check:
        """Figures and outcome of a variant's scores."""
        agreement = recorded_agreement(self.groups, self.expected, found)
        loss = group_ranking_loss(by_query(self.groups, self.expected), by_query(self.groups, found), self.seed)
        points = None if loss is None else loss.loss
        return Check(
            reference=reference,
            texts=len(self.groups),
            single=None,
            multi=None,
            ranking_loss=points,
            ranking_loss_95=None if loss is None else loss.interval,
            top_10_overlap=None if loss is None else loss.overlap,
            budget=budget.points(weights),
            outcome=budget.outcome(weights, points, are_damaged_scores(weights, agreement)),
            score=agreement,
        )


def _failure(variant: str, task: str, check: Check) -> str:
    assert check.score is not None
    agreement: ScoreAgreement = check.score
    loss = "too few queries to rank" if check.ranking_loss is None else f"loses {check.ranking_loss:.2f} points"
    return (
        f"{variant}, task {task!r}: {loss} of nDCG@10 compared with {check.reference}, the budget is {check.budget:g}; "
        f"scores differ by {100 * agreement.relative_difference:.1f} % of their spread, Kendall's tau is "
        f"{agreement.kendall:.3f}; export fewer weights formats, or accept the loss with --allow-loss"
    )
