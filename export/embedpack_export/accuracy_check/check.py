"""Accuracy check: vectors of a finished pack compared with the reference's, within a budget of loss."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedpack import AccuracyError, Embedder, InputError, PackError
from embedpack.pack.accuracy_records import Check, Cosines, ImageAccuracy, TokenCosines
from embedpack.pack.folder import read_pack
from embedpack.pack.variants import Variant
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.budget import Budget, is_damaged
from embedpack_export.accuracy_check.code_figures import code_accuracies
from embedpack_export.accuracy_check.expected import Expected, expected_vectors
from embedpack_export.accuracy_check.failure import Failure
from embedpack_export.accuracy_check.figures import TaskAccuracy, VariantAccuracy
from embedpack_export.accuracy_check.image_check import (
    image_accuracy,
)
from embedpack_export.accuracy_check.sample import pack_vectors, sampled
from embedpack_export.accuracy_check.self_retrieval import RankingLoss
from embedpack_export.accuracy_check.text_vectors import TextVectors
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.stages.cosine_records import cosine_summary, recorded, token_cosines


@dataclass(frozen=True)
class ReferenceRecord:
    """A reference, as reports name it."""

    kind: ReferenceKind
    packages: tuple[str, ...]  # distributions that computed it
    notes: tuple[str, ...]  # sentences about its choice


@dataclass(frozen=True)
class CheckResult:
    """Result of the check of a pack."""

    reference: ReferenceRecord  # the reference, which may be the one in place of the chosen one
    texts: int  # number of texts that were compared; of scores, number of queries
    variants: Mapping[str, VariantAccuracy]  # figures by variant name
    failures: Sequence[str]  # a message for each task of a variant that fails

    def raise_failures(self, pack: Path) -> None:
        """Raise AccuracyError with the figures of the variants that failed, and the cause if it was found."""
        if self.failures:
            raise AccuracyError("\n".join([f"{pack}: the export fails its accuracy check", *self.failures]))


def check_pack(folder: Path, plan: ExportPlan, references: ChosenReference, budget: Budget) -> CheckResult:
    """Compare every task of every variant of the finished pack in a folder with the main reference.

    Raises:
        PackError: the pack is broken.
        AccuracyError: a variant returns vectors that are zero or not finite.
        CheckpointError, InputError, CapacityError: the reference fails.
    """
    reference = references.main
    pack, texts = read_pack(folder), sampled(plan, reference)
    expected = {task: expected_vectors(plan, reference, task, texts) for task in plan.tasks}
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
    record = ReferenceRecord(reference.kind, reference.packages, references.notes)
    return CheckResult(record, len(texts), variants, failures)


@dataclass(frozen=True)
class _Cosines:
    """Cosines to the reference, of the vectors that the model has."""

    single: Cosines | None
    multi: TokenCosines | None

    @classmethod
    def of(cls, expected: TextVectors, found: TextVectors) -> _Cosines:
        """Cosines of vectors of the same texts."""
        single, multi = None, None
        if expected.single is not None and found.single is not None:
            single = recorded(cosine_summary([expected.single], [found.single]))
        if expected.multi is not None and found.multi is not None:
            _check_counts(expected.multi, found.multi)
            multi = token_cosines(expected.multi, found.multi)
        return cls(single, multi)


def _check_counts(expected: Sequence[Float32], found: Sequence[Float32]) -> None:
    for one, other in zip(expected, found, strict=True):
        if len(one) != len(other):
            raise AccuracyError(
                f"a text has {len(other)} vectors in the pack and {len(one)} in the reference: the two read its tokens "
                "or its prompt in other ways; report it"
            )


@dataclass(frozen=True)
class _VariantCheck:
    """Comparison of one variant with the reference."""

    plan: ExportPlan
    references: ChosenReference
    budget: Budget
    name: str
    variant: Variant

    def run(
        self, model: Embedder, task: str, texts: Sequence[CalibrationText], expected: Expected
    ) -> tuple[TaskAccuracy, str | None]:
        """Figures of a task, and the message of its failure, if it fails."""
        try:
            vectors, images = pack_vectors(self.plan, model, task, texts), None
            if expected.images is not None:
                images = image_accuracy(model, task, expected.images)
        except (InputError, PackError) as cause:
            # The reference accepted these inputs.
            raise AccuracyError(f"{self.name}, task {task!r}: no vectors: {cause}; the weights are damaged") from cause
        loss, codes = None, []
        if expected.ranking is not None:
            loss = expected.ranking.compare(vectors.scores(self.plan))
            codes = list(code_accuracies(model.pack, task, vectors, expected.ranking))
        check = self._check(_Cosines.of(expected.vectors, vectors), len(texts), loss, images)
        failure = Failure(self.plan, self.references, task, check, self.variant.weights)
        message = failure.message(expected, vectors.means)
        where = f"{self.name}, task {task!r}"
        return TaskAccuracy(check=check, codes=tuple(codes)), None if message is None else f"{where}: {message}"

    def _check(self, cosines: _Cosines, texts: int, loss: RankingLoss | None, images: ImageAccuracy | None) -> Check:
        weights, points = self.variant.weights, None if loss is None else loss.loss
        return Check(
            reference=self.references.main.kind,
            texts=texts,
            single=cosines.single,
            multi=cosines.multi,
            ranking_loss=points,
            ranking_loss_95=None if loss is None else loss.interval,
            top_10_overlap=None if loss is None else loss.overlap,
            budget=self.budget.points(weights),
            outcome=self.budget.outcome(weights, points, is_damaged(weights, cosines.multi, images)),
            images=images,
        )
