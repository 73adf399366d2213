"""Accuracy check: vectors of a finished pack compared with the reference's, within a budget of loss."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack import AccuracyError, Embedder, InputError, PackError
from embedpack.pack.accuracy_records import Check, ImageAccuracy, TokenCosines
from embedpack.pack.folder import read_pack
from embedpack.pack.variants import Variant
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import unit
from embedpack_export.accuracy_check.budget import Budget, is_damaged
from embedpack_export.accuracy_check.code_figures import code_accuracies
from embedpack_export.accuracy_check.diagnosis import MAX_MEAN_DISTANCE, find_cause, reads_differently
from embedpack_export.accuracy_check.figures import TaskAccuracy, VariantAccuracy
from embedpack_export.accuracy_check.image_check import (
    ExpectedImages,
    expected_images,
    image_accuracy,
    images_read_differently,
)
from embedpack_export.accuracy_check.sample import PromptedText, pack_multi_vectors, pack_vectors, prompted, sampled
from embedpack_export.accuracy_check.self_retrieval import MIN_TEXTS, RankingLoss, ReferenceRanking
from embedpack_export.metrics.cosines import CosineSummary
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.reference.protocol import Reference
from embedpack_export.stages.cosine_records import cosine_summary, recorded, token_cosines

# Some hundred tokens each: enough for the mean and the 1 % quantile of their cosines.
MAX_MULTI_VECTOR_TEXTS = 64


@dataclass(frozen=True)
class CheckResult:
    """Result of the check of a pack."""

    reference: ChosenReference  # the reference, which may be the one in place of the chosen one
    texts: int  # number of texts that were compared
    variants: Mapping[str, VariantAccuracy]  # figures by variant name
    failures: Sequence[str]  # a message for each task of a variant that fails

    def raise_failures(self, pack: Path) -> None:
        """Raise AccuracyError with the figures of the variants that failed, and the cause if it was found."""
        if self.failures:
            raise AccuracyError("\n".join([f"{pack}: the export fails its accuracy check", *self.failures]))


@dataclass(frozen=True)
class _Expected:
    """Vectors of the reference for a task."""

    texts: Sequence[PromptedText]  # texts under the prompts of the plan
    single: Float32  # vectors [texts, dimensions]
    multi: Sequence[Float32] | None  # multi-vectors of the texts of `_multi_vector_rows`; None: the model has none
    ranking: ReferenceRanking | None  # rankings of the texts; None: there are too few
    images: ExpectedImages | None


def check_pack(folder: Path, plan: ExportPlan, references: ChosenReference, budget: Budget) -> CheckResult:
    """Compare every task of every variant of the finished pack in a folder with the main reference.

    Raises:
        PackError: the pack is broken.
        AccuracyError: a variant returns vectors that are zero or not finite.
        CheckpointError, InputError, CapacityError: the reference fails.
    """
    reference = references.main
    pack, texts = read_pack(folder), sampled(plan, reference)
    expected = {task: _expected(plan, reference, task, texts) for task in plan.tasks}
    variants: dict[str, VariantAccuracy] = {}
    failures: list[str] = []
    for name, variant in pack.manifest.variants.items():
        check = _VariantCheck(plan, references, budget, name, variant)
        tasks: dict[str, TaskAccuracy] = {}
        # One variant at a time is in memory.
        model = Embedder(folder, variant=name)
        for task in plan.tasks if variant.task is None else (variant.task,):
            tasks[task], failure = check.run(model, task, texts, expected[task])
            failures += [] if failure is None else [failure]
        del model
        gc.collect()
        variants[name] = VariantAccuracy(
            weights=variant.weights, adapters=variant.adapters, bytes=pack.manifest.variant_bytes(name), tasks=tasks
        )
    return CheckResult(references, len(texts), variants, failures)


def _expected(plan: ExportPlan, reference: Reference, task: str, texts: Sequence[CalibrationText]) -> _Expected:
    prompted_texts = prompted(plan, task, texts)
    inputs = [text.whole for text in prompted_texts]
    single, multi = reference.single(task, inputs), None
    if plan.tokens is not None:
        multi = reference.multi(task, [inputs[row] for row in _multi_vector_rows(len(inputs))])
    ranking = ReferenceRanking(_factors(plan, single), plan.seed) if len(single) >= MIN_TEXTS else None
    return _Expected(prompted_texts, single, multi, ranking, expected_images(plan, reference, task))


@dataclass(frozen=True)
class _VariantCheck:
    """Comparison of one variant with the reference."""

    plan: ExportPlan
    references: ChosenReference
    budget: Budget
    name: str
    variant: Variant

    def run(
        self, model: Embedder, task: str, texts: Sequence[CalibrationText], expected: _Expected
    ) -> tuple[TaskAccuracy, str | None]:
        """Figures of a task, and the message of its failure, if it fails."""
        try:
            vectors, tokens, images = pack_vectors(model, task, texts), None, None
            if expected.multi is not None:
                rows = _multi_vector_rows(len(texts))
                tokens = token_cosines(expected.multi, pack_multi_vectors(model, task, [texts[row] for row in rows]))
            if expected.images is not None:
                images = image_accuracy(model, task, expected.images)
        except (InputError, PackError) as cause:
            # The reference accepted these inputs.
            raise AccuracyError(f"{self.name}, task {task!r}: no vectors: {cause}; the weights are damaged") from cause
        loss, codes = None, []
        if expected.ranking is not None:
            factors = _factors(self.plan, vectors)
            loss = expected.ranking.compare(factors @ factors.T)
            codes = list(code_accuracies(model.pack, task, vectors, expected.ranking))
        check = self._check(cosine_summary([expected.single], [vectors]), loss, tokens, images)
        return TaskAccuracy(check=check, codes=tuple(codes)), self._failure(task, check, expected, vectors)

    def _check(
        self,
        cosines: CosineSummary,
        loss: RankingLoss | None,
        tokens: TokenCosines | None,
        images: ImageAccuracy | None,
    ) -> Check:
        weights, points = self.variant.weights, None if loss is None else loss.loss
        return Check(
            reference=self.references.main.kind,
            texts=cosines.count,
            single=recorded(cosines),
            multi=tokens,
            ranking_loss=points,
            ranking_loss_95=None if loss is None else loss.interval,
            top_10_overlap=None if loss is None else loss.overlap,
            budget=self.budget.points(weights),
            outcome=self.budget.outcome(weights, points, is_damaged(weights, tokens, images)),
            images=images,
        )

    def _failure(self, task: str, check: Check, expected: _Expected, vectors: Float32) -> str | None:
        """Message for a loss over the budget, or for vectors of another model, however small their loss is."""
        over = check.outcome == "over budget"
        assert check.single is not None
        if not over and 1 - check.single.mean <= MAX_MEAN_DISTANCE[self.variant.weights]:
            return None
        where = f"{self.name}, task {task!r}"
        if reads_differently(self.references, task, expected.texts):
            return (
                f"{where}: {_described(check)}. Before any rounding, the exporter's own float32 vectors already differ "
                "from torch's: it reads the model in another way than transformers does (a key of config.json, an "
                "adapter), so a budget does not help; report it"
            )
        cause = find_cause(self.plan, self.references.main, task, expected.texts, vectors)
        if cause is not None:
            return f"{where}: {cause} ({_described(check)}); export again, report it if it recurs"
        if not over:
            return None
        if expected.images is not None and is_damaged(self.variant.weights, None, check.images):
            return f"{where}: {self._image_failure(task, expected.images)} ({_described(check)})"
        if self.variant.weights == "fp32":
            return (
                f"{where}: {_described(check)}; the budget is {check.budget:g}. No other adapter, prompt or pooling "
                "explains it, and rounding to fp32 costs no points: the weights are damaged, or the graph is wrong; "
                "export again, report it if it recurs"
            )
        return (
            f"{where}: {_described(check)}; the budget is {check.budget:g}. No other adapter, prompt or pooling "
            f"explains it, so the cause is rounding to {self.variant.weights}, or damaged weights: "
            "leave the format out, calibrate on texts like yours (--calibrate), or accept the loss with --allow-loss "
            f"{math.ceil(100 * (check.ranking_loss or 0)) / 100:g}"
        )

    def _image_failure(self, task: str, images: ExpectedImages) -> str:
        """Cause of vectors of images that are far from the reference's."""
        if images_read_differently(self.references, task, images):
            return (
                "before any rounding, the exporter's own float32 vectors of images already differ from torch's: it "
                "reads pixels or the vision tower in another way than transformers does, so a budget does not help; "
                "report it"
            )
        return (
            f"vectors of images are too far from the reference's for rounding to {self.variant.weights}: the vision "
            "graph or its weights are damaged; export again, report it if it recurs"
        )


def _factors(plan: ExportPlan, vectors: Float32) -> Float32:
    """Vectors whose dot products rank texts as the model's similarity does."""
    return vectors if plan.single.normalize or plan.single.similarity == "dot" else unit(vectors)


def _multi_vector_rows(texts: int) -> list[int]:
    """Evenly spaced row numbers of the texts whose multi-vectors are compared."""
    rows: list[int] = np.linspace(0, texts - 1, min(texts, MAX_MULTI_VECTOR_TEXTS)).astype(int).tolist()
    return rows


def _described(check: Check) -> str:
    """Loss and cosines as a sentence."""
    single, multi, images = check.single, check.multi, check.images
    assert single is not None
    cosines = f"cosine to {check.reference} {single.mean:.4f}, lowest {single.min:.4f}, {check.texts} texts"
    if multi is not None:
        cosines += f"; of multi-vectors {multi.mean:.4f}"
    if images is not None and images.single is not None:
        cosines += f"; of {images.images} images {images.single.mean:.4f}"
    if check.ranking_loss is None or check.ranking_loss_95 is None or check.top_10_overlap is None:
        return cosines
    low, high = check.ranking_loss_95
    return (
        f"it loses {check.ranking_loss:.2f} points of nDCG@10 (95 %: {low:.2f} to {high:.2f}; "
        f"{100 * check.top_10_overlap:.1f} % of the top 10 kept; {cosines})"
    )
