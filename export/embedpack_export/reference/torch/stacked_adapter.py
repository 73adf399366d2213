"""Adapter of a task whose tensors are in the checkpoint, unmerged, in a torch model.

As in the code of jina-embeddings-v3, the output of a module gets the product of its factors: scale * B (A x) of a
linear layer, scale * A[id] B of an embedding. As in that of v5-omni, rows of special tokens are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModel

from embedpack.errors import CheckpointError
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.name_rules import NameRules

# transformers leaves its methods untyped.
auto_model: Any = AutoModel

Hook = Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


def load_text_tensors(source: ModelSource, config: Any) -> torch.nn.Module:
    """Load transformers' model of a configuration with the tensors of texts that are no adapters.

    Raises:
        CheckpointError: a tensor of the model is missing, or one of the checkpoint has no place in it.
    """
    rules, folder = source.model.rules, source.checkpoint.folder
    model = auto_model.from_config(config, dtype=torch.float32, attn_implementation="eager")
    tensors = rules.of_graph(source.checkpoint.tensors.items(), str(folder))
    used = {name: each for name, each in tensors.items() if source.is_text_tensor(name)}
    state = {name: torch.from_numpy(each.float32()) for name, each in used.items() if not rules.unused.search(name)}
    loaded = model.load_state_dict(state, strict=False)
    wrong = [name for name in (*loaded.missing_keys, *loaded.unexpected_keys) if not rules.unused.search(name)]
    if wrong:
        raise CheckpointError(f"{folder}: transformers' model and the checkpoint differ in {', '.join(wrong[:5])}")
    assert isinstance(model, torch.nn.Module)
    return model


def add_stacked(model: torch.nn.Module, adapter: Adapter, rules: NameRules) -> torch.nn.Module:
    """Add the adapter to the outputs of its modules, in place.

    Raises:
        CheckpointError: the model has no place for a module.
    """
    for place, update in rules.of_graph(adapter.updates.items(), str(adapter.folder)).items():
        module = dict(model.named_modules()).get(place)
        if module is not None:
            module.register_forward_hook(_hook(update))
        elif not rules.unused.search(f"{place}."):
            raise CheckpointError(f"{adapter.folder}: transformers' model has no module {place!r}")
    return model


def replace_rows(model: torch.nn.Module, adapter: Adapter, rules: NameRules) -> None:
    """Replace the rows of tables that an adapter replaces, in place, as the code of jina-embeddings-v5-omni does."""
    for place, new in rules.of_graph(adapter.token_rows.items(), str(adapter.folder)).items():
        with torch.no_grad():
            table = model.get_parameter(f"{place}.weight")
            table[list(new.indices)] = torch.from_numpy(new.rows.float32())


def _hook(update: LowRankUpdate) -> Hook:
    a, b = (torch.from_numpy(tensor.float32()) for tensor in (update.a, update.b))

    def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        change = a[inputs[0]] @ b if update.is_embedding else (inputs[0] @ a.T) @ b.T
        return output + update.scale * change

    return add
