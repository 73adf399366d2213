"""Reader of PEFT adapter folders: adapter_config.json and adapter_model.safetensors.

A folder holds one adapter, or those of several tasks in one file as in jina-embeddings-v4, where the task follows
`lora_A` in the key. An adapter with an unknown key is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack.storage.safetensors import StoredTensor, open_safetensors
from embedpack_export.sources.checkpoint import check_is_float, read_json
from embedpack_export.sources.files import check_file, exists
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.patterns import check_patterns, ends_with

Number = TypeVar("Number", int, float)

KEY_PREFIX = "base_model.model."
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")

# Settings that change nothing in a saved adapter beyond its keys.
HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config", "exclude_modules",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "lora_ga_config", "megatron_core",
    "modules_to_save", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
})  # fmt: skip
# Other ways of initialising subtract the first A and B from the backbone, which is not in the adapter's file.
SELF_CONTAINED_INIT = (True, False, None, "gaussian", "orthogonal", "eva")


class LoraConfig(msgspec.Struct, frozen=True):
    """Fields of adapter_config.json that a merge depends on, with PEFT's defaults."""

    peft_type: str
    r: Annotated[int, msgspec.Meta(ge=1)] = 8
    lora_alpha: float = 8
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    fan_in_fan_out: bool | None = None
    init_lora_weights: bool | str | None = True


@dataclass(frozen=True)
class PeftAdapter:
    """Adapter of one task."""

    folder: Path
    updates: Mapping[str, LowRankUpdate]  # low-rank updates by module name
    # Tensors that replace those of the backbone, by name (trained biases, `modules_to_save`).
    replacements: Mapping[str, StoredTensor]


@dataclass(frozen=True)
class _Key:
    """A parsed key of the file."""

    module: str  # name of the module
    part: str  # one of PARTS; "" for a tensor that replaces one of the model
    task: str  # the task; "" in a file of one adapter
    leaf: str  # "weight", "bias" or ""

    @property
    def slot(self) -> str:
        """The part or its bias; PEFT appends ".weight" to the parts of linear layers only."""
        return f"{self.part}.bias" if self.leaf == "bias" else self.part


def read_adapter(folder: Path, task: str) -> PeftAdapter:
    """Read the adapter of a task.

    Raises:
        CheckpointError: the folder holds no LoRA adapter, no such task, or an unknown key or setting.
    """
    config_path = folder / "adapter_config.json"
    config = _read_config(config_path)
    path = folder / "adapter_model.safetensors"
    if not exists(path):
        raise CheckpointError(
            f"{folder}: no {path.name}; other formats are not read (pickled weights run code when they are loaded)"
        )
    tensors = open_safetensors(check_file(path, folder), CheckpointError).tensors
    keys = {name: _take_apart(path, name) for name in tensors}
    check_patterns(config_path, read_json(config_path, dict[str, Any]), {key.module for key in keys.values()})
    tasks = sorted({key.task for key in keys.values() if key.task})
    if tasks and task not in tasks:
        raise CheckpointError(f"{path}: {unknown('task', task, tasks)}")
    parts: dict[str, dict[str, StoredTensor]] = {}
    replacements: dict[str, StoredTensor] = {}
    for name, key in keys.items():
        if key.task not in ("", task):
            continue
        check_is_float(tensors[name])
        target = parts.setdefault(key.module, {}) if key.part else replacements
        slot = key.slot if key.part else f"{key.module}.{key.leaf}"
        if slot in target:
            raise CheckpointError(f"{path}: {target[slot].name} and {name} name the same tensor; remove one of them")
        target[slot] = tensors[name]
    updates = {module: _update(path, config, module, tensors) for module, tensors in parts.items()}
    if not updates and not replacements:
        raise CheckpointError(f"{path}: holds no tensors; train the adapter, or leave it out")
    return PeftAdapter(folder, updates, replacements)


def _read_config(path: Path) -> LoraConfig:
    config = read_json(path, LoraConfig)
    if config.peft_type != "LORA":
        raise CheckpointError(f"{path}: peft_type is {config.peft_type!r}; only LORA can be merged")
    for name, value in read_json(path, dict[str, Any]).items():
        if value and name not in HARMLESS and name not in LoraConfig.__struct_fields__:
            raise CheckpointError(f"{path}: {name} is {value!r}; merging such an adapter is not supported")
    if config.fan_in_fan_out:
        raise CheckpointError(f"{path}: fan_in_fan_out is set; transposed (Conv1D) layers are not supported")
    if config.init_lora_weights not in SELF_CONTAINED_INIT:
        raise CheckpointError(
            f"{path}: init_lora_weights is {config.init_lora_weights!r}, which also changed the backbone; save the "
            "adapter again with path_initial_model_for_weight_conversion, which makes it a plain LoRA"
        )
    return config


def _take_apart(path: Path, name: str) -> _Key:
    words = name.removeprefix(KEY_PREFIX).split(".")
    leaf = words.pop() if words[-1] in ("weight", "bias") else ""
    part = next((word for word in words if word in PARTS), "")
    if part:
        module, rest = words[: words.index(part)], words[words.index(part) + 1 :]
    else:
        module, rest = [word for word in words if word not in ("base_layer", "modules_to_save", "default")], []
    valid = name.startswith(KEY_PREFIX) and module and (part or leaf) and len(rest) <= 1
    if not valid or any("lora" in word or "trainable_tokens" in word for word in module):
        raise CheckpointError(f"{path}: the key {name!r} is unknown; only LoRA and DoRA adapters can be merged")
    return _Key(".".join(module), part, rest[0] if rest else "", leaf)


def _update(path: Path, config: LoraConfig, module: str, tensors: Mapping[str, StoredTensor]) -> LowRankUpdate:
    embedding = "lora_embedding_A" in tensors
    a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    others = set(tensors) - {a, b, "lora_magnitude_vector", "lora_B.bias"}
    if a not in tensors or b not in tensors or others:
        raise CheckpointError(f"{path}: {module} has {', '.join(sorted(tensors))}; expected {a} and {b}")
    if len(tensors[a].shape) != 2 or len(tensors[b].shape) != 2:
        raise CheckpointError(f"{path}: {module}: {a} and {b} must be matrices")
    rank = tensors[a].shape[0]
    configured = _by_pattern(path, config.rank_pattern, module, config.r)
    if configured != rank:
        # The scale depends on the rank: a file and a configuration that disagree must not be merged.
        raise CheckpointError(
            f"{path}: {module} has rank {rank}, adapter_config.json has {configured}; are both from one training run?"
        )
    return LowRankUpdate(
        path=module,
        a=tensors[a],
        b=tensors[b],
        scale=_by_pattern(path, config.alpha_pattern, module, config.lora_alpha)
        / (rank**0.5 if config.use_rslora else rank),
        embedding=embedding,
        magnitude=tensors.get("lora_magnitude_vector"),
        b_bias=tensors.get("lora_B.bias"),
    )


def _by_pattern(path: Path, patterns: Mapping[str, Number] | None, module: str, default: Number) -> Number:
    """Value of the first pattern that matches the end of the module's name, as in PEFT (utils/other.py)."""
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(ends_with(pattern), module):
                return value
        except (re.error, RecursionError) as cause:
            raise CheckpointError(
                f"{path}: {pattern!r} in rank_pattern or alpha_pattern is no regular expression: {cause}"
            ) from cause
    return default
