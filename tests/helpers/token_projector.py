"""Adapters of two tasks whose file has a projector for multi-vectors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.helpers.peft_oracle import load_model, save_adapter

TASKS = ("retrieval", "code")
SIZE = 16
BASE = "base_model.model.multi_vector_projector.base_layer"


def with_projector(checkpoint: Path, seed: int) -> Any:
    model = load_model(checkpoint)
    torch.manual_seed(seed)
    model.add_module("multi_vector_projector", torch.nn.Linear(model.config.hidden_size, SIZE))
    return model


def save_tasks(checkpoint: Path, folder: Path, *, projector_seed: int = 5) -> Path:
    """Adapters of all tasks in one file, with the projector that they share."""
    tensors: dict[str, torch.Tensor] = {}
    for seed, task in enumerate(TASKS):
        model = with_projector(checkpoint, projector_seed)
        for part, value in model.multi_vector_projector.state_dict().items():
            tensors[f"{BASE}.{part}"] = value.clone()
        targets = ["query", "output.dense", "multi_vector_projector"]
        one = save_adapter(checkpoint, folder / task, model=model, seed=seed, target_modules=targets)
        for name, tensor in load_file(one / "adapter_model.safetensors").items():
            tensors[f"{name.removesuffix('.weight')}.{task}.weight"] = tensor
        shutil.move(one / "adapter_config.json", folder / "adapter_config.json")
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
