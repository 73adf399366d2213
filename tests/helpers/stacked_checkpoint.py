"""A tiny BERT whose adapters are stacked in the checkpoint itself, as torch.nn.utils.parametrize saves them."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedpack_export.families import bert, families
from embedpack_export.families.model import Model
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.stacked_adapters import Stacked
from tests.helpers.exports import Arrays, edit_tensors
from tests.helpers.tiny_checkpoint import make_checkpoint

TASKS = ("query", "passage", "separation")
RANK, SCALE = 3, 0.25
# A table, and linear layers of other shapes than square.
ADAPTED = (
    "embeddings.word_embeddings",
    "encoder.layer.0.attention.self.query",
    "encoder.layer.0.intermediate.dense",
    "encoder.layer.1.output.dense",
)
MARK = ".parametrizations.weight"


def make_stacked(folder: Path, adapted: tuple[str, ...] = ADAPTED) -> Path:
    """Write the checkpoint."""
    make_checkpoint(folder)
    edit_tensors(folder / "model.safetensors", lambda tensors: _stack(tensors, adapted))
    return folder


def _stack(tensors: Arrays, adapted: tuple[str, ...]) -> None:
    rng = np.random.default_rng(5)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal((len(TASKS), *shape)) * 0.4).astype(np.float32)

    for module in adapted:
        weight = tensors.pop(f"{module}.weight")
        rows, columns = weight.shape
        is_table = module.endswith("_embeddings")
        tensors[f"{module}{MARK}.original"] = weight
        tensors[f"{module}{MARK}.0.lora_A"] = normal(rows, RANK) if is_table else normal(RANK, columns)
        tensors[f"{module}{MARK}.0.lora_B"] = normal(RANK, columns) if is_table else normal(rows, RANK)


def merged_copy(stacked: Path, task: str | None, folder: Path) -> Path:
    """A plain BERT with the adapter of a task (None: without one) in its weights."""
    shutil.copytree(stacked, folder)

    def merge(tensors: Arrays) -> None:
        for name in [name for name in tensors if name.endswith(f"{MARK}.original")]:
            module = name.removesuffix(f"{MARK}.original")
            a, b = tensors.pop(f"{module}{MARK}.0.lora_A"), tensors.pop(f"{module}{MARK}.0.lora_B")
            weight = tensors.pop(name).astype(np.float64)
            if task is not None:
                index = TASKS.index(task)
                left, right = (a, b) if module.endswith("_embeddings") else (b, a)
                weight += SCALE * left[index].astype(np.float64) @ right[index]
            tensors[f"{module}.weight"] = weight.astype(np.float32)

    edit_tensors(folder / "model.safetensors", merge)
    return folder


def read_stacked(checkpoint: Checkpoint) -> Model:
    """The checkpoint as a family reads it, with a task without an adapter."""
    rules = replace(bert.RULES, renames={**bert.RULES.renames, f"{MARK}.original": ".weight"})
    adapters = Stacked(TASKS, RANK, SCALE, re.compile("_embeddings$"))
    return replace(bert.read(checkpoint), rules=rules, adapters=adapters, base_task="base")


@pytest.fixture
def stacked_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of BERT are read as stacked ones."""
    monkeypatch.setitem(families(), "bert", replace(bert.FAMILY, read=read_stacked))
