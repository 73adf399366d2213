"""The accuracy contract: what a user gets from a finished pack, beside the reference, within a budget or not at all."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack import AccuracyError, Embedder, InputError
from embedpack.pack.folder import read_pack
from embedpack.pack.manifest import Check, TokenAccuracy, Variant
from embedpack.vectors.codes import Float32
from embedpack_export.gate.budget import Budget
from embedpack_export.gate.code_figures import code_figures
from embedpack_export.gate.diagnosis import MAX_MEAN_DISTANCE, find_cause
from embedpack_export.gate.figures import TaskFigures, VariantFigures
from embedpack_export.gate.sample import PromptedText, pack_tokens, pack_vectors, prompted, sampled
from embedpack_export.gate.self_retrieval import MIN_TEXTS, RankingLoss, ReferenceRanking
from embedpack_export.metrics.cosines import CosineSummary, row_cosines, summarise_cosines
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.protocol import Reference

COSINE_DIGITS = 6
# Each of them has some hundred tokens, enough for their mean and first percentile.
MOST_TOKEN_TEXTS = 64


@dataclass(frozen=True)
class Checked:
    """What the comparison of a pack found.

    Attributes:
        texts: how many were compared.
        variants: figures by name.
        failures: a message for each variant and task that must not be used.
    """

    texts: int
    variants: Mapping[str, VariantFigures]
    failures: Sequence[str]

    def raise_failures(self, pack: Path) -> None:
        """Refuse the pack if a variant failed.

        Raises:
            AccuracyError: with the figures, and the cause where it is known.
        """
        if self.failures:
            raise AccuracyError("\n".join([f"{pack}: the export fails its accuracy budget", *self.failures]))


@dataclass(frozen=True)
class _Expected:
    """Vectors of a task, `tokens` of some texts only; `ranking` is None if there are too few texts."""

    texts: list[PromptedText]
    single: Float32
    tokens: list[Float32] | None
    ranking: ReferenceRanking | None


def check_pack(folder: Path, plan: ExportPlan, reference: Reference, budget: Budget) -> Checked:
    """Compare every variant of a finished pack with the reference, task by task.

    Args:
        folder: of the pack.
        plan: how the pack should have been made.
        reference: what is compared with; it must belong to the plan.
        budget: of the losses.

    Raises:
        PackError: the pack is broken.
        AccuracyError: a variant gives vectors without a direction, which cannot be compared.
        CheckpointError: the reference cannot be computed.
    """
    pack, texts = read_pack(folder), sampled(plan, reference)
    expected = {task: _expected(plan, reference, task, texts) for task in plan.tasks}
    variants: dict[str, VariantFigures] = {}
    failures: list[str] = []
    for name, variant in pack.manifest.variants.items():
        checking = _Checking(plan, reference, budget, name, variant)
        tasks: dict[str, TaskFigures] = {}
        # One variant at a time is in memory.
        model = Embedder(folder, variant=name)
        for task in plan.tasks if variant.task is None else (variant.task,):
            tasks[task], failure = checking.run(model, task, texts, expected[task])
            failures += [] if failure is None else [failure]
        del model
        gc.collect()
        variants[name] = VariantFigures(
            weights=variant.weights, adapters=variant.adapters, bytes=pack.manifest.variant_bytes(name), tasks=tasks
        )
    return Checked(len(texts), variants, failures)


def _expected(plan: ExportPlan, reference: Reference, task: str, texts: Sequence[CalibrationText]) -> _Expected:
    with_prompts = prompted(plan, task, texts)
    single = reference.single(task, [text.whole for text in with_prompts])
    return _Expected(
        with_prompts,
        single,
        None
        if plan.model.tokens is None
        else reference.multi(task, [with_prompts[row].whole for row in _token_rows(len(with_prompts))]),
        ReferenceRanking(single, plan.seed) if len(single) >= MIN_TEXTS else None,
    )


@dataclass(frozen=True)
class _Checking:
    """The comparison of one variant."""

    plan: ExportPlan
    reference: Reference
    budget: Budget
    name: str
    variant: Variant

    def run(
        self, model: Embedder, task: str, texts: Sequence[CalibrationText], expected: _Expected
    ) -> tuple[TaskFigures, str | None]:
        """Figures of a task, and what is wrong with it."""
        try:
            found = pack_vectors(model, task, texts)
            tokens = None
            if expected.tokens is not None:
                some = [texts[row] for row in _token_rows(len(texts))]
                tokens = expected.tokens, pack_tokens(model, task, some)
        except InputError as cause:
            # The reference took these texts.
            raise AccuracyError(f"{self.name}, task {task!r}: no vectors: {cause}; the weights are damaged") from cause
        loss = None if expected.ranking is None else expected.ranking.compare(found @ found.T)
        check = self._check(_summary(expected.single, found), loss, tokens)
        codes = () if expected.ranking is None else tuple(code_figures(model.pack, task, found, expected.ranking))
        return TaskFigures(check=check, codes=codes), self._failure(task, check, expected.texts, found)

    def _check(
        self,
        cosines: CosineSummary,
        ranking: RankingLoss | None,
        tokens: tuple[list[Float32], list[Float32]] | None,
    ) -> Check:
        weights = self.variant.weights
        loss, close_tokens = None if ranking is None else ranking.loss, None if tokens is None else _tokens(*tokens)
        token_cosine = None if close_tokens is None else close_tokens.cosine_mean
        return Check(
            reference=self.reference.kind,
            texts=cosines.count,
            cosine_mean=cosines.mean,
            cosine_p1=cosines.p1,
            cosine_min=cosines.min,
            ranking_loss=loss,
            ranking_loss_95=None if ranking is None else ranking.interval,
            top_10_overlap=None if ranking is None else ranking.overlap,
            budget=self.budget.points(weights),
            verdict=self.budget.verdict(weights, loss, token_cosine),
            tokens=close_tokens,
        )

    def _failure(self, task: str, check: Check, texts: Sequence[PromptedText], found: Float32) -> str | None:
        """Over the budget, or another model altogether, however little is lost by that."""
        over = check.verdict == "over budget"
        if not over and 1 - check.cosine_mean <= MAX_MEAN_DISTANCE[self.variant.weights]:
            return None
        cause = find_cause(self.plan, self.reference, task, texts, found)
        if cause is not None:
            return f"{self.name}, task {task!r}: {cause} ({_told(check)}); export it again, and report it if it returns"
        if not over:
            return None
        return (
            f"{self.name}, task {task!r}: {_told(check)}, at most {check.budget:g} wanted; no other adapter, prompt or "
            f"pooling that the {check.reference} knows explains it, so it is the weights, rounded to "
            f"{self.variant.weights} or damaged: leave the format out, calibrate on texts like yours (--calibrate), or "
            f"accept it with --allow-loss {math.ceil(100 * (check.ranking_loss or 0)) / 100:g}"
        )


def _token_rows(texts: int) -> list[int]:
    """Which of so many texts are compared token by token, evenly taken."""
    rows: list[int] = np.linspace(0, texts - 1, min(texts, MOST_TOKEN_TEXTS)).astype(int).tolist()
    return rows


def _told(check: Check) -> str:
    figures = f"cosine to {check.reference} {check.cosine_mean:.4f}, lowest {check.cosine_min:.4f}, {check.texts} texts"
    if check.tokens is not None:
        figures += f", of their tokens' vectors {check.tokens.cosine_mean:.4f}"
    if check.ranking_loss is None or check.ranking_loss_95 is None or check.top_10_overlap is None:
        return figures
    low, high = check.ranking_loss_95
    return (
        f"it loses {check.ranking_loss:.2f} points of nDCG@10 (95 %: {low:.2f} to {high:.2f}; top 10 kept "
        f"{100 * check.top_10_overlap:.1f} %; {figures})"
    )


def _tokens(expected: Sequence[Float32], found: Sequence[Float32]) -> TokenAccuracy:
    cosines = _summary(np.concatenate(expected), np.concatenate(found))
    return TokenAccuracy(tokens=cosines.count, cosine_mean=cosines.mean, cosine_p1=cosines.p1)


def _summary(expected: Float32, found: Float32) -> CosineSummary:
    return summarise_cosines(row_cosines(expected, found), COSINE_DIGITS)
