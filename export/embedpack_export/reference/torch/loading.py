"""Checkpoint and adapter into torch, strictly: a tensor that is missing or left over is an error, not a log line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.warning import PeftWarning
from transformers import AutoModel
from transformers.utils import logging

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import open_safetensors
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.peft_adapter import KEY_PREFIX
from embedpack_export.sources.weights import NameRules

# jina-embeddings-v4 keeps all tasks in one file: `….lora_A.<task>.weight`.
TASK_KEY = re.compile(r"(?P<part>\.lora_\w+)\.(?!(weight|bias)$)(?P<task>[^.]+)")
# The layer below the LoRA of a projector that comes with the adapters.
PROJECTOR_KEYS = {f"{KEY_PREFIX}multi_vector_projector.base_layer.{part}" for part in ("weight", "bias")}
# transformers leaves these functions untyped.
transformers_logging: Any = logging


def load_model(plan: ExportPlan, task: str) -> torch.nn.Module:
    """The backbone in float32 with the task's adapter beside its weights, ready to compute.

    Raises:
        CheckpointError: a tensor of the backbone or a key of the adapter is missing, or has no place in the model.
    """
    with quiet():
        model = _load_backbone(plan)
        if plan.model.tokens is not None:
            # Under the name that the adapters know; the backbone itself does not call it.
            model.add_module(plan.model.tokens.module, _load_projector(plan, plan.model.tokens.module))
        adapter = plan.tasks[task].adapter
        if adapter is not None:
            model = add_adapter(model, adapter.folder, _read_state(adapter.folder, task, plan.model.rules))
    return model.eval()


def _load_backbone(plan: ExportPlan) -> torch.nn.Module:
    folder = plan.checkpoint.folder
    # Eager attention is the plain formula, and the same on every CPU.
    model, loaded = AutoModel.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    unused = plan.model.rules.unused
    missing = sorted(name for name in loaded["missing_keys"] if not unused.search(name))
    wrong = missing + sorted(str(item) for item in loaded["mismatched_keys"])
    if wrong:
        raise CheckpointError(f"{folder}: transformers finds no fitting weights for {', '.join(wrong[:5])}")
    assert isinstance(model, torch.nn.Module)
    return model


def _load_projector(plan: ExportPlan, module: str) -> torch.nn.Linear:
    weight, bias = (
        torch.from_numpy(plan.checkpoint.tensors[f"{module}.{part}"].float32()) for part in ("weight", "bias")
    )
    projector = torch.nn.Linear(weight.shape[1], weight.shape[0])
    projector.load_state_dict({"weight": weight, "bias": bias})
    return projector


def _read_state(folder: Path, task: str, rules: NameRules) -> dict[str, torch.Tensor]:
    """The tensors of one task under the names that PEFT itself would give them, those of a projector left out."""
    state = {}
    for name, tensor in open_safetensors(folder / "adapter_model.safetensors", CheckpointError).tensors.items():
        found = TASK_KEY.search(name)
        if name not in PROJECTOR_KEYS and (found is None or found["task"] == task):
            plain = rules.normal(TASK_KEY.sub(r"\g<part>", name).removeprefix(KEY_PREFIX))
            state[KEY_PREFIX + plain] = torch.from_numpy(tensor.float32())
    return state


def add_adapter(model: torch.nn.Module, folder: Path, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The model with the tensors of `state` beside its weights, where adapter_config.json wants them.

    Raises:
        CheckpointError: PEFT would use other keys than there are.
    """
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    # The task type would wrap the model in a head's call; the base name only serves a look-up on the hub.
    config.task_type = config.base_model_name_or_path = None
    adapted = get_peft_model(model, config)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if set(expected) != set(state):
        differing = ", ".join(sorted(set(expected) ^ set(state))[:5])
        raise CheckpointError(
            f"{folder}: the keys of the file are not those that PEFT makes of adapter_config.json; they differ in "
            f"{differing}: are both of one run?"
        )
    loaded: Any = set_peft_model_state_dict(adapted, dict(state))
    if loaded.unexpected_keys or any("lora_" in name for name in loaded.missing_keys):
        raise CheckpointError(f"{folder}: PEFT did not load all keys: {loaded}")
    assert isinstance(adapted, torch.nn.Module)
    return adapted


@contextmanager
def quiet() -> Iterator[None]:
    """No report of unused heads and no progress bar: what matters of them is checked here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks transformers 5 for a property by its former name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # It also warns of every `lora_bias`, which is a vector by nature.
            warnings.filterwarnings("ignore", "Adapter .* have invalid shape", PeftWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
