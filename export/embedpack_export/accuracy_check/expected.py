"""Vectors of the reference that the accuracy check expects of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import unit
from embedpack_export.accuracy_check.image_check import ExpectedImages, expected_images
from embedpack_export.accuracy_check.sample import PromptedText, prompted
from embedpack_export.accuracy_check.self_retrieval import MIN_TEXTS, ReferenceRanking
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.protocol import Reference

# Some hundred tokens each: enough for the mean and the 1 % quantile of their cosines.
MAX_MULTI_VECTOR_TEXTS = 64


@dataclass(frozen=True)
class Expected:
    """Vectors of the reference for a task."""

    texts: Sequence[PromptedText]  # texts under the prompts of the plan
    single: Float32  # vectors [texts, dimensions]
    multi: Sequence[Float32] | None  # multi-vectors of the texts of `multi_vector_rows`; None: the model has none
    ranking: ReferenceRanking | None  # rankings of the texts; None: there are too few
    images: ExpectedImages | None


def expected_vectors(plan: ExportPlan, reference: Reference, task: str, texts: Sequence[CalibrationText]) -> Expected:
    """Compute the vectors of a task; errors as those of the reference."""
    prompted_texts = prompted(plan, task, texts)
    inputs = [text.whole for text in prompted_texts]
    single, multi = reference.single(task, inputs), None
    if plan.tokens is not None:
        multi = reference.multi(task, [inputs[row] for row in multi_vector_rows(len(inputs))])
    ranking = ReferenceRanking(ranking_factors(plan, single), plan.seed) if len(single) >= MIN_TEXTS else None
    return Expected(prompted_texts, single, multi, ranking, expected_images(plan, reference, task))


def ranking_factors(plan: ExportPlan, vectors: Float32) -> Float32:
    """Vectors whose dot products rank texts as the model's similarity does."""
    return vectors if plan.single.normalize or plan.single.similarity == "dot" else unit(vectors)


def multi_vector_rows(texts: int) -> list[int]:
    """Evenly spaced row numbers of the texts whose multi-vectors are compared."""
    rows: list[int] = np.linspace(0, texts - 1, min(texts, MAX_MULTI_VECTOR_TEXTS)).astype(int).tolist()
    return rows
