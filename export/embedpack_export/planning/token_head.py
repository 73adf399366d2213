"""Projector for multi-vectors from the adapters' file, for single-vector models that were trained with one.

It is stored as the layer below its LoRA, without a task, for all tasks:
`base_model.model.multi_vector_projector.base_layer.weight` and `.bias`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.families.heads import TokenHead
from embedpack_export.families.model import PROJECTOR, Model
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.head_layers import Dense

WEIGHT, BIAS = f"{PROJECTOR}.weight", f"{PROJECTOR}.bias"


@dataclass(frozen=True)
class ModelWithTasks:
    """A checkpoint as its family reads it, and the tasks of its adapters."""

    checkpoint: Checkpoint
    model: Model
    tasks: Mapping[str, TaskPlan]


def take_token_head(source: ModelWithTasks) -> ModelWithTasks:
    """Move the projector from the adapters to the checkpoint; change nothing if they have none.

    Raises:
        CheckpointError: some adapters have a projector and others do not, they differ, or one is incomplete.
    """
    checkpoint, model, tasks = source.checkpoint, source.model, source.tasks
    projectors = {task: _projector(plan) for task, plan in tasks.items() if plan.adapter is not None}
    first, projector = next(((task, tensors) for task, tensors in projectors.items() if tensors), ("", {}))
    if model.heads.tokens is not None or not projector:
        return source
    for task in projectors:
        _check_same(projectors, first, task)
    for name in (WEIGHT, BIAS):
        if name not in projector:
            raise CheckpointError(
                f"{next(iter(projector.values())).path}: {name} is missing; a projector has both parts"
            )
    outputs, inputs = projector[WEIGHT].shape
    if inputs != model.hidden:
        raise CheckpointError(
            f"{projector[WEIGHT].path}: {WEIGHT} has the shape {[outputs, inputs]}, hidden states have {model.hidden} "
            "values; is it an adapter for another model?"
        )
    layer = Dense(PROJECTOR, inputs, outputs, bias=True)
    return ModelWithTasks(
        checkpoint=replace(checkpoint, tensors={**checkpoint.tensors, **projector}),
        model=replace(model, heads=replace(model.heads, tokens=TokenHead((layer,)))),
        tasks={task: _without_projector(plan) for task, plan in tasks.items()},
    )


def _projector(plan: TaskPlan) -> dict[str, StoredTensor]:
    tensors = {} if plan.adapter is None else plan.adapter.replacements
    return {name: tensor for name, tensor in tensors.items() if name in (WEIGHT, BIAS)}


def _without_projector(plan: TaskPlan) -> TaskPlan:
    if plan.adapter is None:
        return plan
    others = {name: tensor for name, tensor in plan.adapter.replacements.items() if name not in (WEIGHT, BIAS)}
    return replace(plan, adapter=replace(plan.adapter, replacements=others))


def _check_same(projectors: Mapping[str, Mapping[str, StoredTensor]], task: str, other: str) -> None:
    """Refuse two tasks whose projectors differ."""
    expected, tensors = projectors[task], projectors[other]
    remedy = "all tasks of a pack share one projector; export them as packs of their own"
    if set(tensors) != set(expected):
        raise CheckpointError(
            f"the adapter of {task!r} brings {', '.join(sorted(expected))}, that of {other!r} "
            f"{', '.join(sorted(tensors)) or 'no projector'}: {remedy}"
        )
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape or not np.array_equal(tensor.raw(), tensors[name].raw()):
            raise CheckpointError(f"{name} of {tensor.path} and of {tensors[name].path} differ: {remedy}")
