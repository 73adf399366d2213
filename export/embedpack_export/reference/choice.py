"""Choice of the reference that an export compares its pack with."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedpack.errors import CapacityError, CheckpointError, EmbedpackError, InputError, MissingExtraError
from embedpack.host.memory import MEGABYTE, available_memory
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.protocol import Reference
from embedpack_export.reference.reading_check import check_reading
from embedpack_export.reference.recorded import RecordedReference
from embedpack_export.reference.torch_reference import TORCH_PACKAGES, TorchReference
from embedpack_export.stages.task_run import RecordedVectors

logger = logging.getLogger("embedpack")

# float32, and 30 % for loading and activations.
BYTES_PER_PARAMETER = 4 * 1.3
# Short, and has a token in every vocabulary.
PROBE_TEXT = "a"


@dataclass(frozen=True)
class ChosenReference:
    """References of a finished pack."""

    main: Reference  # the reference
    fp32_graph: RecordedReference  # vectors that the export recorded, in place of `main` if that fails
    notes: tuple[str, ...]  # sentences about the choice, for the report

    def without_torch(self, note: str) -> ChosenReference:
        """The fp32 graph in place of torch, with the reason in the notes."""
        return replace(self, main=self.fp32_graph, notes=(*self.notes, note))


@dataclass(frozen=True)
class ReferenceChoice:
    """Choice before calibration: torch, which has computed a vector with each adapter, or the fp32 graph."""

    torch: TorchReference | None
    notes: tuple[str, ...]

    def with_recorded(self, plan: ExportPlan, recorded: Mapping[str, RecordedVectors]) -> ChosenReference:
        """References with the float32 vectors of the calibration inputs of each task."""
        fp32_graph = RecordedReference(plan, recorded)
        return ChosenReference(self.torch or fp32_graph, fp32_graph, self.notes)


def choose_reference(plan: ExportPlan, settings: ExportSettings) -> ReferenceChoice:
    """Choose torch, or the fp32 graph if torch cannot compute this model; log the choice and its reason.

    Raises:
        MissingExtraError, InputError: the settings ask for torch, which is not installed or cannot compute this model.
        CheckpointError: the model's own libraries read texts otherwise; or the settings ask for torch, and transformers
            or PEFT refuses the checkpoint or an adapter.
    """
    notes = check_reading(plan, settings)
    if settings.reference == "fp32 graph":
        return ReferenceChoice(None, notes)
    torch = TorchReference(plan)
    obstacle = torch_obstacle(plan) or _refusal(torch, plan)
    if obstacle is None:
        logger.info("reference: torch with unmerged adapters")
        return ReferenceChoice(torch, notes)
    if settings.reference == "torch":
        raise obstacle
    logger.warning("reference: the fp32 graph, not torch: %s", obstacle)
    return ReferenceChoice(None, (f"The reference is not torch: {obstacle}.", *notes))


def torch_obstacle(plan: ExportPlan) -> EmbedpackError | None:
    """Reason against torch that is known without loading the model."""
    for package in TORCH_PACKAGES:
        if importlib.util.find_spec(package) is None:
            return MissingExtraError("reference", package)
    needed, available = int(plan.parameters * BYTES_PER_PARAMETER), available_memory()
    if available is not None and needed > available:
        return InputError(f"it needs about {needed // MEGABYTE} MB of memory, {available // MEGABYTE} MB are available")
    return None


def _refusal(torch: TorchReference, plan: ExportPlan) -> EmbedpackError | None:
    """Reason of transformers or PEFT against the files, from one text of each task."""
    try:
        for task in plan.tasks:
            if plan.single is not None:
                torch.single(task, [PROBE_TEXT])
            else:
                torch.multi(task, [PROBE_TEXT])
    except (CheckpointError, InputError, CapacityError) as refusal:
        return refusal
    finally:
        # Calibration needs the memory.
        torch.close()
    return None
