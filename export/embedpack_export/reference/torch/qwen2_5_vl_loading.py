"""Strict loading of a checkpoint in the layout of jina-embeddings-v4 into torch, with the unmerged LoRA of a task."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from embedpack.errors import CheckpointError, unknown
from embedpack_export.families.model import PROJECTOR
from embedpack_export.reference.torch.loading import quiet
from embedpack_export.reference.torch.pretrained import open_model
from embedpack_export.reference.torch.unmerged_adapter import UnmergedAdapter
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from embedpack_export.sources.peft_adapter import TENSORS_FILE, adapter_tensors
from embedpack_export.sources.peft_keys import parse_key


class V4Model(torch.nn.Module):
    """Towers and projector under the names in the adapters' keys."""

    def __init__(self, model: torch.nn.Module, projector: torch.nn.Linear | None) -> None:
        super().__init__()
        self.model = model
        self.multi_vector_projector = projector


def load_v4(folder: Path, task: str | None) -> V4Model:
    """Load both towers and the projector in float32, in eval mode; `task`: task whose adapter is added, or None.

    Raises:
        CheckpointError: a tensor of the base or of the task is missing, left over, or of another shape.
    """
    checkpoint = read_checkpoint(folder)
    with quiet():
        loaded = V4Model(_load_towers(checkpoint), _load_projector(checkpoint))
        if task is not None:
            adapters = folder / "adapters"
            _check_task(adapters, task)
            # PEFT puts its layers into the modules of `loaded`; its wrapper around them is not needed.
            UnmergedAdapter(adapters, task, place=str, unused=lambda name: False).add_to(loaded)
    return loaded.eval()


def _load_projector(checkpoint: Checkpoint) -> torch.nn.Linear | None:
    """Load the projector of multi-vectors; None: the checkpoint has none."""
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(f"{PROJECTOR}.")}
    if not tensors:
        return None
    if set(tensors) != {f"{PROJECTOR}.weight", f"{PROJECTOR}.bias"}:
        raise CheckpointError(
            f"{checkpoint.folder}: the projector has {', '.join(sorted(tensors))}, not weight and bias"
        )
    weight, bias = (torch.from_numpy(tensors[f"{PROJECTOR}.{part}"].float32()) for part in ("weight", "bias"))
    projector = torch.nn.Linear(weight.shape[1], weight.shape[0])
    projector.load_state_dict({"weight": weight, "bias": bias})
    return projector


def _load_towers(checkpoint: Checkpoint) -> torch.nn.Module:
    # Only the class with a head finds the tensors under either spelling.
    model, report = open_model(Qwen2_5_VLForConditionalGeneration, checkpoint.folder)
    left = {name for name in report["unexpected_keys"] if not name.startswith(f"{PROJECTOR}.")}
    wrong = left | set(report["missing_keys"]) | {str(item) for item in report["mismatched_keys"]}
    if wrong:
        raise CheckpointError(f"{checkpoint.folder}: transformers does not use these: {', '.join(sorted(wrong)[:5])}")
    towers = model.model
    assert isinstance(towers, torch.nn.Module)
    return towers


def _check_task(folder: Path, task: str) -> None:
    """Refuse a file without this task."""
    path = folder / TENSORS_FILE
    tasks = {parse_key(path, name).task for name in adapter_tensors(folder)} - {""}
    if task not in tasks:
        raise CheckpointError(f"{path}: {unknown('task', task, sorted(tasks))}")
