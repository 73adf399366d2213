"""Choice of the reference that an export compares its pack with."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping

from embedpack.errors import CheckpointError, InputError, MissingExtraError
from embedpack.host.memory import MEGABYTE, available_memory
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.protocol import Reference
from embedpack_export.reference.recorded import RecordedReference
from embedpack_export.reference.torch.by_family import reads_images
from embedpack_export.reference.torch_reference import TORCH_PACKAGES, TorchReference
from embedpack_export.stages.task_run import RecordedVectors

logger = logging.getLogger("embedpack")

# float32, and 30 % for loading and activations.
BYTES_PER_PARAMETER = 4 * 1.3


def choose_reference(
    plan: ExportPlan, recorded: Mapping[str, RecordedVectors], kind: ReferenceKind | None
) -> Reference:
    """Choose torch, or the recorded vectors if torch cannot compute this model; log the choice and its reason.

    `recorded` has the float32 vectors of the calibration inputs of each task. `kind` is the only choice; None: either.

    Raises:
        MissingExtraError, InputError: `kind` is "torch", which is not installed or cannot compute this model.
        CheckpointError: `kind` is "torch", and transformers or PEFT refuses the checkpoint or an adapter.
    """
    if kind == "fp32 graph":
        return RecordedReference(plan, recorded)
    torch = TorchReference(plan)
    obstacle = _obstacle(plan)
    if kind == "torch":
        if obstacle is not None:
            raise obstacle
        return torch
    obstacle = obstacle or _refusal(torch, plan)
    if obstacle is not None:
        logger.warning("reference: the fp32 graph, not torch: %s", obstacle)
        return RecordedReference(plan, recorded)
    logger.info("reference: torch with unmerged adapters")
    return torch


def _obstacle(plan: ExportPlan) -> Exception | None:
    """Reason against torch that is known without loading the model."""
    for package in TORCH_PACKAGES:
        if importlib.util.find_spec(package) is None:
            return MissingExtraError("reference", package)
    if reads_images(plan):
        return InputError("models that read images are compared with the fp32 graph")
    needed, available = int(plan.parameters * BYTES_PER_PARAMETER), available_memory()
    if available is not None and needed > available:
        return InputError(f"it needs about {needed // MEGABYTE} MB of memory, {available // MEGABYTE} MB are available")
    return None


def _refusal(torch: TorchReference, plan: ExportPlan) -> CheckpointError | None:
    """Reason of transformers or PEFT against the files, from one text of each task."""
    try:
        for task in plan.tasks:
            torch.single(task, ["a"])
    except CheckpointError as refusal:
        return refusal
    return None
