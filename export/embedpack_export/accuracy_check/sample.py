"""Calibration texts of the accuracy check, and their vectors from the pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedpack import Embedder
from embedpack.engine.options import EncodeSettings
from embedpack.pack.manifest import Task
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.prompted_texts import PromptedText, reference_covers
from embedpack_export.accuracy_check.self_retrieval import MIN_TEXTS
from embedpack_export.accuracy_check.text_vectors import MAX_MULTI_VECTOR_TEXTS, TextVectors, multi_vector_rows
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.protocol import Reference

# Texts times parameters: all of 240 texts up to half a billion parameters, 16 of them from 7.5 billion on.
WORK = 1.2e11


def sampled(plan: ExportPlan, reference: Reference) -> list[CalibrationText]:
    """Evenly spaced calibration texts that the reference covers; fewer for a larger model, or for MaxSim."""
    covered = [
        text
        for text in plan.calibration.texts
        if all(reference_covers(reference, task, prompted(plan, task, [text])) for task in plan.tasks)
    ]
    most = len(covered) if plan.single is not None else MAX_MULTI_VECTOR_TEXTS
    count = min(len(covered), most, max(MIN_TEXTS, int(WORK / max(1, plan.parameters))))
    return [covered[row] for row in np.linspace(0, len(covered) - 1, count).astype(int)]


def prompted(plan: ExportPlan, task: str, texts: Sequence[CalibrationText]) -> list[PromptedText]:
    """Texts under the prompts of their kinds."""
    return [PromptedText(plan.tasks[task].prompt(text.kind), text.text) for text in texts]


def pack_vectors(plan: ExportPlan, model: Embedder, task: str, texts: Sequence[CalibrationText]) -> TextVectors:
    """Vectors of the pack under the prompts of the texts' kinds."""
    single = None if plan.single is None else _single_vectors(model, task, texts)
    chosen = [texts[row] for row in multi_vector_rows(len(texts))]
    return TextVectors(single, None if plan.tokens is None else _multi_vectors(model, task, chosen))


def _single_vectors(model: Embedder, task: str, texts: Sequence[CalibrationText]) -> Float32:
    """Single vectors of the pack under the prompts of the texts' kinds: [texts, dimensions].

    Truncated texts are not reported: they are the exporter's own.
    """
    vectors = np.empty((len(texts), model.dimensions), np.float32)
    with model.stats(len(texts)) as stats:
        for name, rows in _rows_by_prompt(model.pack.manifest.tasks[task], texts).items():
            settings = EncodeSettings(task=task, prompt_name=name)
            vectors[rows] = model.encode_part([texts[row].text for row in rows], settings, stats).decode()
    return vectors


def _multi_vectors(model: Embedder, task: str, texts: Sequence[CalibrationText]) -> list[Float32]:
    """Multi-vectors of the pack under the same prompts: for each text unit vectors [tokens, dimensions]."""
    vectors: dict[int, Float32] = {}
    with model.stats(len(texts)) as stats:
        for name, rows in _rows_by_prompt(model.pack.manifest.tasks[task], texts).items():
            settings = EncodeSettings(task=task, prompt_name=name)
            multi = model.encode_multi_part([texts[row].text for row in rows], settings, stats)
            vectors.update(zip(rows.tolist(), multi.decode(), strict=True))
    return [vectors[row] for row in range(len(texts))]


def _rows_by_prompt(task: Task, texts: Sequence[CalibrationText]) -> Mapping[str | None, npt.NDArray[np.intp]]:
    """Row numbers of the texts under each prompt name."""
    names = [task.prompt_name(text.kind) for text in texts]
    return {name: np.array([row for row, other in enumerate(names) if other == name]) for name in dict.fromkeys(names)}
