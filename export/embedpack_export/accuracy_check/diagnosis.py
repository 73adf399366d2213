"""Diagnosis of wrong vectors: another adapter, other prompts or another pooling than those of the plan.

Each suspicion is a mistake. Rounding errors have no preferred direction, so if the vectors of a variant are clearly
nearer to the reference's vectors under that mistake than to the right ones, the mistake is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedpack.pack.manifest import Pooling
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.prompted_texts import (
    PromptedText,
    reference_covers,
    reference_multi,
    reference_single,
)
from embedpack_export.accuracy_check.text_vectors import TextVectors
from embedpack_export.graph.pooling import POOL
from embedpack_export.metrics.cosines import row_cosines
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.reference.protocol import Reference

# Mean 1 - cosine above which a variant is diagnosed even within its budget. all-MiniLM-L6-v2 has 0, 0.0004 and 0.009.
MAX_MEAN_DISTANCE: dict[WeightsFormat, float] = {"fp32": 1e-5, "fp16": 1e-4, "int8": 1e-3, "int4": 1e-2}
# Distance to the vectors of a suspicion over the distance to the right ones: chance does not get below this.
MAX_DISTANCE_RATIO = 2 / 3
EPSILON = 1e-9
# Enough texts to distinguish two models.
MAX_TEXTS = 32


@dataclass(frozen=True)
class Mistake:
    """A mistake that an export may have made."""

    message: str  # description of the mistake
    texts: Sequence[PromptedText]  # texts under the prompts of the mistake
    task: str | None  # task whose adapter was used; None: no adapter
    pooling: Pooling | None = None  # pooling that was used; None: that of the plan


def find_cause(
    plan: ExportPlan, reference: Reference, task: str, texts: Sequence[PromptedText], vectors: Float32
) -> str | None:
    """Find the mistake that explains the vectors of a pack, [texts, dimensions], better than rounding does.

    The vectors are those of `TextVectors.means`.

    Suspicions that the reference does not cover are not tested. None: none of the known mistakes does.
    """
    rows = _spread_rows(len(texts))
    texts, vectors = [texts[row] for row in rows], vectors[rows]
    right = _means(plan, reference, task, texts)
    lowest, cause = MAX_DISTANCE_RATIO, None
    for suspicion in _suspicions(plan, task, texts):
        changed = np.array([text != other for text, other in zip(texts, suspicion.texts, strict=True)])
        # Suspicions of prompts are tested on the texts whose prompt would change, all others on all texts.
        changed = changed if changed.any() else np.ones(len(texts), bool)
        inputs = [suspicion.texts[row] for row in np.flatnonzero(changed).tolist()]
        if not reference_covers(reference, suspicion.task, inputs, suspicion.pooling):
            continue
        wrong = _means(plan, reference, suspicion.task, inputs, suspicion.pooling)
        ratio = _distance(wrong, vectors[changed]) / max(_distance(right[changed], vectors[changed]), EPSILON)
        if ratio < lowest:
            lowest, cause = ratio, suspicion.message
    return cause


def reads_differently(plan: ExportPlan, references: ChosenReference, task: str, texts: Sequence[PromptedText]) -> bool:
    """True if the exporter's float32 vectors of the texts are not those of the main reference."""
    inputs = [texts[row] for row in _spread_rows(len(texts))]
    if references.main is references.fp32_graph or not reference_covers(references.fp32_graph, task, inputs):
        return False
    vectors = [_means(plan, reference, task, inputs) for reference in (references.main, references.fp32_graph)]
    return _distance(*vectors) > MAX_MEAN_DISTANCE["fp32"]


def _suspicions(plan: ExportPlan, task: str, texts: Sequence[PromptedText]) -> Iterator[Mistake]:
    for other in plan.tasks:
        if other != task:
            yield Mistake(f"its vectors are those of the task {other!r}: the adapters were swapped", texts, other)
    if plan.tasks[task].adapter is not None:
        yield Mistake("its vectors are those of the model without an adapter: the adapter was left out", texts, None)
    yield from _prompt_suspicions(plan, task, texts)
    for pooling in POOL if plan.pooling is not None else ():
        if pooling != plan.pooling:
            yield Mistake(
                f"its vectors are those of {pooling} pooling, not {plan.pooling}: the pooling was changed",
                texts,
                task,
                pooling,
            )


def _prompt_suspicions(plan: ExportPlan, task: str, texts: Sequence[PromptedText]) -> Iterator[Mistake]:
    if any(text.prompt for text in texts):
        yield Mistake(
            "its vectors are those of the texts without their prompts: the prompts were dropped",
            [replace(text, prompt="") for text in texts],
            task,
        )
    for name, prompt in plan.tasks[task].prompts.items():
        if any(text.prompt != prompt for text in texts):
            yield Mistake(
                f"its vectors are those of texts under the prompt {name!r}, whatever prompt was asked for: the prompts "
                "were mixed up",
                [replace(text, prompt=prompt) for text in texts],
                task,
            )


def _means(
    plan: ExportPlan,
    reference: Reference,
    task: str | None,
    texts: Sequence[PromptedText],
    pooling: Pooling | None = None,
) -> Float32:
    """One vector of the reference for each text, [texts, dimensions]."""
    if plan.single is not None:
        return reference_single(reference, task, texts, pooling)
    return TextVectors(None, reference_multi(reference, task, texts)).means


def _spread_rows(count: int) -> list[int]:
    """Numbers of at most MAX_TEXTS rows, evenly spaced."""
    rows: list[int] = np.linspace(0, count - 1, min(count, MAX_TEXTS)).astype(int).tolist()
    return rows


def _distance(one: Float32, other: Float32) -> float:
    """Mean 1 - cosine."""
    return float(1 - row_cosines(one, other).mean())
