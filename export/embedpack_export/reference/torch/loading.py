"""Strict loading of a checkpoint and an adapter into torch: a missing or unused tensor is an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.utils.warning import PeftWarning
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from embedpack.errors import CheckpointError
from embedpack_export.families.model import PROJECTOR
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.head import load_layer
from embedpack_export.reference.torch.pretrained import open_model
from embedpack_export.reference.torch.stacked_adapter import add_stacked, load_text_tensors, replace_rows
from embedpack_export.reference.torch.unmerged_adapter import UnmergedAdapter
from embedpack_export.sources.stacked_adapters import Stacked
from embedpack_export.sources.task_tokens import TaskTokens

# transformers leaves these functions untyped.
transformers_logging: Any = logging


def load_model(source: ModelSource, task: str | None) -> torch.nn.Module:
    """Load the backbone in float32 with the unmerged adapter of a task (None: without an adapter), in eval mode.

    Raises:
        CheckpointError: a tensor of the backbone or a key of the adapter is missing, or has no place in the model.
    """
    with quiet():
        model = _load_backbone(source)
        projectors = () if source.tokens is None else source.tokens.layers
        for layer in (layer for layer in projectors if layer.module == PROJECTOR):
            # Under the name in the adapters' keys; the backbone itself does not call it.
            model.add_module(layer.module, load_layer(layer, source.checkpoint.tensors))
        if task is not None and (adapter := source.tasks[task].adapter) is not None:
            rules = source.model.rules
            if not adapter.files:
                return add_stacked(model, adapter, rules).eval()
            if isinstance(source.model.adapters, TaskTokens):
                replace_rows(model, adapter, rules)
            model = UnmergedAdapter(adapter.folder, task, rules.normal, rules.unused.search).add_to(model)
    return model.eval()


def _load_backbone(source: ModelSource) -> torch.nn.Module:
    folder, fields = source.checkpoint.folder, dict(source.model.config_of_class or {})
    config = AutoConfig.for_model(str(fields.pop("model_type")), **fields) if fields else None
    if isinstance(source.model.adapters, (Stacked, TaskTokens)):
        return load_text_tensors(source, config or AutoConfig.from_pretrained(folder, local_files_only=True))
    model, loaded = open_model(AutoModel, folder, config)
    unused = source.model.rules.unused
    missing = sorted(name for name in loaded["missing_keys"] if not unused.search(name))
    wrong = missing + sorted(str(item) for item in loaded["mismatched_keys"])
    if wrong:
        raise CheckpointError(f"{folder}: transformers finds no fitting weights for {', '.join(wrong[:5])}")
    return model


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
            # It also warns of every `lora_bias`: a vector by nature, which a layer without a bias cannot merge.
            warnings.filterwarnings("ignore", ".*(have invalid shape|lora_bias=True)", PeftWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
