"""Which calibration texts are compared, and how the two sides read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedpack import Embedder
from embedpack.pack.manifest import Task
from embedpack.vectors.codes import Float32
from embedpack_export.gate.self_retrieval import MIN_TEXTS
from embedpack_export.planning.calibration_texts import CalibrationText
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.choice import Prompted, Reference, Setup

# Texts times parameters: all of 240 texts up to half a billion parameters, 16 of them from 7.5 billion on.
WORK = 1.2e11


def sampled(plan: ExportPlan, reference: Reference) -> list[CalibrationText]:
    """Texts, evenly taken among those that the reference knows, as many as a model of this size can read."""
    known = [text for text in plan.calibration.texts if _known(plan, reference, text)]
    kept = min(len(known), max(MIN_TEXTS, int(WORK / max(1, plan.parameters))))
    return [known[row] for row in np.linspace(0, len(known) - 1, kept).astype(int)]


def _known(plan: ExportPlan, reference: Reference, text: CalibrationText) -> bool:
    return all(reference.knows(Setup(task, plan.pooling), prompted(plan, task, [text])) for task in plan.tasks)


def prompted(plan: ExportPlan, task: str, texts: Sequence[CalibrationText]) -> list[Prompted]:
    """Each text with the prompt that the plan has for its kind."""
    return [(plan.tasks[task].prompt(text.kind), text.text) for text in texts]


def pack_vectors(model: Embedder, task: str, texts: Sequence[CalibrationText]) -> Float32:
    """What a user gets for the texts who names the prompt of their kind: unit vectors [texts, dimensions]."""
    known = model.pack.manifest.tasks[task]
    vectors = np.empty((len(texts), model.dimensions), np.float32)
    for name, rows in _by_prompt(known, texts).items():
        vectors[rows] = model.encode([texts[row].text for row in rows], task=task, prompt_name=name).decode()
    return vectors


def pack_tokens(model: Embedder, task: str, texts: Sequence[CalibrationText]) -> list[Float32]:
    """The same of multi-vectors: unit vectors [tokens, dimensions of the head] of each text."""
    found: dict[int, Float32] = {}
    for name, rows in _by_prompt(model.pack.manifest.tasks[task], texts).items():
        multi = model.encode_multi([texts[row].text for row in rows], task=task, prompt_name=name)
        found.update(zip(rows.tolist(), multi.decode(), strict=True))
    return [found[row] for row in range(len(texts))]


def _by_prompt(task: Task, texts: Sequence[CalibrationText]) -> Mapping[str | None, npt.NDArray[np.intp]]:
    """Rows of the texts of each prompt of a pack's task."""
    names = [task.prompt_name(text.kind) for text in texts]
    return {name: np.array([row for row, other in enumerate(names) if other == name]) for name in dict.fromkeys(names)}
