"""A head for multi-vectors that comes with the adapters, where the checkpoint has none.

Single-vector models have no projector. One that was trained together with adapters is kept in their file, as the layer
below its LoRA: `base_model.model.multi_vector_projector.base_layer.weight` and `.bias`, without a task, for all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.families import Model, TokenHead
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.sources.checkpoint import Checkpoint

PROJECTOR = "multi_vector_projector"
WEIGHT, BIAS = f"{PROJECTOR}.weight", f"{PROJECTOR}.bias"


def take_token_head(
    checkpoint: Checkpoint, model: Model, tasks: Mapping[str, TaskPlan]
) -> tuple[Checkpoint, Model, Mapping[str, TaskPlan]]:
    """Move the projector that the adapters bring into the checkpoint; all stays as it is where they bring none.

    Raises:
        CheckpointError: only some of the adapters bring a projector, they bring different ones, or it is incomplete.
    """
    found = {task: _projector(plan) for task, plan in tasks.items()}
    first, projector = next(((task, item) for task, item in found.items() if item), ("", {}))
    if model.tokens is not None or not projector:
        return checkpoint, model, tasks
    for task, other in found.items():
        _check_same((first, projector), (task, other))
    for name in (WEIGHT, BIAS):
        if name not in projector:
            raise CheckpointError(
                f"{next(iter(projector.values())).path}: {name} is missing; a projector has both parts"
            )
    return (
        replace(checkpoint, tensors={**checkpoint.tensors, **projector}),
        replace(model, tokens=TokenHead(PROJECTOR, projector[WEIGHT].shape[0])),
        {task: _without_projector(plan) for task, plan in tasks.items()},
    )


def _projector(plan: TaskPlan) -> dict[str, StoredTensor]:
    brought = {} if plan.adapter is None else plan.adapter.replacements
    return {name: tensor for name, tensor in brought.items() if name in (WEIGHT, BIAS)}


def _without_projector(plan: TaskPlan) -> TaskPlan:
    if plan.adapter is None:
        return plan
    left = {name: tensor for name, tensor in plan.adapter.replacements.items() if name not in (WEIGHT, BIAS)}
    return replace(plan, adapter=replace(plan.adapter, replacements=left))


def _check_same(first: tuple[str, Mapping[str, StoredTensor]], other: tuple[str, Mapping[str, StoredTensor]]) -> None:
    (task, expected), (another, found) = first, other
    remedy = "all tasks of a pack share one projector; export them as packs of their own"
    if set(found) != set(expected):
        raise CheckpointError(
            f"the adapter of {task!r} brings {', '.join(sorted(expected))}, that of {another!r} "
            f"{', '.join(sorted(found)) or 'no projector'}: {remedy}"
        )
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape or not np.array_equal(tensor.raw(), found[name].raw()):
            raise CheckpointError(f"{name} of {tensor.path} and of {found[name].path} differ: {remedy}")
