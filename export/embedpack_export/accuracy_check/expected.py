"""Vectors of the reference that the accuracy check expects of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedpack_export.accuracy_check.image_check import ExpectedImages, expected_images
from embedpack_export.accuracy_check.prompted_texts import PromptedText, reference_multi, reference_single
from embedpack_export.accuracy_check.sample import prompted
from embedpack_export.accuracy_check.self_retrieval import MIN_TEXTS, ReferenceRanking
from embedpack_export.accuracy_check.text_vectors import TextVectors, multi_vector_rows
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.protocol import Reference


@dataclass(frozen=True)
class Expected:
    """Vectors of the reference for a task."""

    texts: Sequence[PromptedText]  # texts under the prompts of the plan
    vectors: TextVectors
    ranking: ReferenceRanking | None  # rankings of the texts; None: there are too few
    images: ExpectedImages | None


def expected_vectors(plan: ExportPlan, reference: Reference, task: str, texts: Sequence[CalibrationText]) -> Expected:
    """Compute the vectors of a task; errors as those of the reference."""
    inputs = prompted(plan, task, texts)
    single = None if plan.single is None else reference_single(reference, task, inputs)
    chosen = [inputs[row] for row in multi_vector_rows(len(inputs))]
    vectors = TextVectors(single, None if plan.tokens is None else reference_multi(reference, task, chosen))
    ranking = ReferenceRanking(vectors.scores(plan), plan.seed) if len(inputs) >= MIN_TEXTS else None
    return Expected(inputs, vectors, ranking, expected_images(plan, reference, task))
