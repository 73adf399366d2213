"""Unmerged adapter of a task in a torch model, computed by PEFT.

PEFT looks for the modules of an adapter by patterns in adapter_config.json, which hold for the class that was trained:
in Qwen2ForCausalLM a module is called model.layers.0..., in Qwen2Model layers.0... . Here the patterns are applied to
the names in the file, by PEFT's own functions, and PEFT then adapts exactly the modules of these names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.other import get_pattern_key

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.lora_config import CONFIG_FILE, read_lora_config
from embedpack_export.sources.lora_config import LoraConfig as Settings
from embedpack_export.sources.patterns import check_patterns
from embedpack_export.sources.peft_adapter import TENSORS_FILE, adapter_tensors
from embedpack_export.sources.peft_keys import KEY_PREFIX, TOKEN_ROWS, AdapterKey, is_of_training, parse_key


@dataclass(frozen=True)
class UnmergedAdapter:
    """Files of the adapter of one task, with the places of its modules in a torch model."""

    folder: Path
    task: str
    place: Callable[[str], str]  # name of a module of the file in the torch model
    unused: Callable[[str], object]  # true for modules and tensors that no embedding needs
    with_heads: bool = False  # its heads for classification are used too

    def add_to(self, model: torch.nn.Module) -> torch.nn.Module:
        """Replace the tensors that the adapter replaces, and wrap the modules that it updates, in place.

        Raises:
            CheckpointError: the model has no place for a tensor, or PEFT would use other tensors than there are.
        """
        keys = self._keys()
        path = self.folder / CONFIG_FILE
        fields = read_json(path, dict[str, Any])
        check_patterns(path, fields, {key.trained for key in keys})
        self._replace(model, {key: tensor for key, tensor in keys.items() if not key.part})
        for key, tensor in keys.items():
            if key.part == TOKEN_ROWS:
                self._replace_rows(model, key, tensor, read_lora_config(path))
        parts = {key: tensor for key, tensor in keys.items() if key.part and key.part != TOKEN_ROWS}
        updates = {key: tensor for key, tensor in parts.items() if self._has_place(model, key)}
        if not updates:
            return model
        adapted = get_peft_model(model, self._exact_config(fields, {key.trained: key.module for key in updates}))
        state = {self._state_name(key): tensor for key, tensor in updates.items()}
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        self._check_same(set(expected), set(state))
        loaded: Any = set_peft_model_state_dict(adapted, state)
        if loaded.unexpected_keys or any("lora_" in name for name in loaded.missing_keys):
            raise CheckpointError(f"{self.folder}: PEFT did not load all keys: {loaded}")
        assert isinstance(adapted, torch.nn.Module)
        return adapted

    def _keys(self) -> dict[AdapterKey, torch.Tensor]:
        """Tensors of the task, without those that no embedding needs."""
        path = self.folder / TENSORS_FILE
        tensors = adapter_tensors(self.folder).items()
        keys = {parse_key(path, name): tensor for name, tensor in tensors if not is_of_training(name)}
        return {
            key: torch.from_numpy(tensor.float32())
            for key, tensor in keys.items()
            if key.task in ("", self.task) and not key.is_unused(with_heads=self.with_heads)
        }

    def _has_place(self, model: torch.nn.Module, key: AdapterKey) -> bool:
        """True if the model has the module of a key; false if no embedding needs it."""
        place = self.place(key.module)
        try:
            model.get_submodule(place)
        except AttributeError:
            if self.unused(f"{place}."):
                return False
            raise CheckpointError(f"{self.folder}: transformers' model has no module {place!r}") from None
        return True

    def _replace(self, model: torch.nn.Module, tensors: Mapping[AdapterKey, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            name = self.place(key.slot)
            if not self._has_place(model, key):
                continue
            parameter = dict(model.get_submodule(self.place(key.module)).named_parameters(recurse=False)).get(key.leaf)
            if parameter is None or parameter.shape != tensor.shape:
                raise CheckpointError(f"{self.folder}: {name} {list(tensor.shape)} has no place in transformers' model")
            with torch.no_grad():
                parameter.copy_(tensor)

    def _replace_rows(self, model: torch.nn.Module, key: AdapterKey, rows: torch.Tensor, config: Settings) -> None:
        """Replace rows of an embedding table as PEFT's index_copy does."""
        table = model.get_parameter(f"{self.place(key.module)}.weight")
        with torch.no_grad():
            table.index_copy_(0, torch.tensor(config.tokens(key.trained)), rows)

    def _exact_config(self, fields: Mapping[str, Any], modules: Mapping[str, str]) -> LoraConfig:
        """Configuration of these modules alone: name in the file by name as trained."""
        ranks, alphas = fields.get("rank_pattern") or {}, fields.get("alpha_pattern") or {}
        places = {trained: f"^{re.escape(self.place(module))}" for trained, module in modules.items()}
        rank, alpha = fields.get("r", LoraConfig.r), fields.get("lora_alpha", LoraConfig.lora_alpha)
        return LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules="|".join(places.values()),
            rank_pattern={place: ranks.get(get_pattern_key(list(ranks), name), rank) for name, place in places.items()},
            alpha_pattern={
                place: alphas.get(get_pattern_key(list(alphas), name), alpha) for name, place in places.items()
            },
            use_rslora=bool(fields.get("use_rslora")),
            use_dora=bool(fields.get("use_dora")),
            lora_bias=bool(fields.get("lora_bias")),
            init_lora_weights=False,
            inference_mode=True,
        )

    def _state_name(self, key: AdapterKey) -> str:
        """Name of a tensor in PEFT's state of the model."""
        leaf = f".{key.leaf}" if key.part in ("lora_A", "lora_B") else ""
        return f"{KEY_PREFIX}{self.place(key.module)}.{key.part}{leaf}"

    def _check_same(self, expected: set[str], found: set[str]) -> None:
        if expected != found:
            differing = ", ".join(sorted(expected ^ found)[:5])
            raise CheckpointError(
                f"{self.folder}: the keys of the file are not those that PEFT makes of adapter_config.json; they "
                f"differ in {differing}: are both of one run?"
            )
