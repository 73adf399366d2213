"""Strict loading of a checkpoint and an adapter into torch: a missing or unused tensor is an error."""

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
from embedpack_export.families import PROJECTOR
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.sources.checkpoint import Checkpoint, read_json
from embedpack_export.sources.patterns import check_patterns
from embedpack_export.sources.peft_adapter import KEY_PREFIX
from embedpack_export.sources.weights import NameRules

# jina-embeddings-v4 keeps all tasks in one file: `….lora_A.<task>.weight`.
TASK_KEY = re.compile(r"(?P<part>\.lora_\w+)\.(?!(weight|bias)$)(?P<task>[^.]+)")
# A projector that is stored with the adapters, as the layer below its LoRA.
PROJECTOR_KEYS = {f"{KEY_PREFIX}{PROJECTOR}.base_layer.{part}" for part in ("weight", "bias")}
# transformers leaves these functions untyped.
transformers_logging: Any = logging


def load_model(source: ModelSource, task: str | None) -> torch.nn.Module:
    """Load the backbone in float32 with the unmerged adapter of a task (None: without an adapter), in eval mode.

    Raises:
        CheckpointError: a tensor of the backbone or a key of the adapter is missing, or has no place in the model.
    """
    with quiet():
        model = _load_backbone(source)
        if source.model.tokens is not None:
            # Under the name in the adapters' keys; the backbone itself does not call it.
            model.add_module(source.model.tokens.module, load_projector(source.checkpoint, source.model.tokens.module))
        if task is not None and (adapter := source.tasks[task].adapter) is not None:
            model = add_adapter(model, adapter.folder, _read_state(adapter.folder, task, source.model.rules))
    return model.eval()


def _load_backbone(source: ModelSource) -> torch.nn.Module:
    folder = source.checkpoint.folder
    # Eager attention is the plain formula, and the same on every CPU.
    model, loaded = AutoModel.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    unused = source.model.rules.unused
    missing = sorted(name for name in loaded["missing_keys"] if not unused.search(name))
    wrong = missing + sorted(str(item) for item in loaded["mismatched_keys"])
    if wrong:
        raise CheckpointError(f"{folder}: transformers finds no fitting weights for {', '.join(wrong[:5])}")
    assert isinstance(model, torch.nn.Module)
    return model


def load_projector(checkpoint: Checkpoint, module: str) -> torch.nn.Linear | None:
    """Load the projector of multi-vectors; None: the checkpoint has none.

    Raises:
        CheckpointError: the projector is incomplete.
    """
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(f"{module}.")}
    if not tensors:
        return None
    if set(tensors) != {f"{module}.weight", f"{module}.bias"}:
        raise CheckpointError(
            f"{checkpoint.folder}: the projector has {', '.join(sorted(tensors))}, not weight and bias"
        )
    weight, bias = (torch.from_numpy(tensors[f"{module}.{part}"].float32()) for part in ("weight", "bias"))
    projector = torch.nn.Linear(weight.shape[1], weight.shape[0])
    projector.load_state_dict({"weight": weight, "bias": bias})
    return projector


def _read_state(folder: Path, task: str, rules: NameRules) -> dict[str, torch.Tensor]:
    """Read the tensors of one task under PEFT's own names, without those of a projector."""
    state = {}
    for name, tensor in open_safetensors(folder / "adapter_model.safetensors", CheckpointError).tensors.items():
        match = TASK_KEY.search(name)
        if name not in PROJECTOR_KEYS and (match is None or match["task"] == task):
            plain = rules.normal(TASK_KEY.sub(r"\g<part>", name).removeprefix(KEY_PREFIX))
            state[KEY_PREFIX + plain] = torch.from_numpy(tensor.float32())
    return state


def add_adapter(model: torch.nn.Module, folder: Path, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Wrap a model with an unmerged adapter: the modules of adapter_config.json, the tensors of `state`.

    Raises:
        CheckpointError: PEFT would use other keys than there are.
    """
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    # A task type would add the call of a head; the base name only serves a look-up on the hub.
    config.task_type = config.base_model_name_or_path = None
    path = folder / "adapter_config.json"
    check_patterns(path, read_json(path, dict[str, Any]), (name for name, _ in model.named_modules()))
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
    """Silence reports of unused heads and progress bars: the keys are checked here."""
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
