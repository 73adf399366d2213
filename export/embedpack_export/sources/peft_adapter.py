"""Reader of PEFT adapter folders: adapter_config.json and adapter_model.safetensors.

A folder holds one adapter, or those of several tasks in one file as in jina-embeddings-v4, where the task follows
`lora_A` in the key. An adapter with an unknown key is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.errors import CheckpointError, unknown
from embedpack.storage.safetensors import StoredTensor, open_safetensors
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import check_is_float, read_json
from embedpack_export.sources.files import check_file, exists
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.lora_config import CONFIG_FILE, LoraConfig, read_lora_config
from embedpack_export.sources.patterns import check_patterns
from embedpack_export.sources.peft_keys import TOKEN_ROWS, WRAPPER, AdapterKey, is_of_training, parse_key
from embedpack_export.sources.token_rows import TokenRows

TENSORS_FILE = "adapter_model.safetensors"

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class _KeyedTensor:
    """A tensor of the file with its parsed key."""

    key: AdapterKey
    tensor: StoredTensor


def read_adapter(folder: Path, task: str, *, with_heads: bool = False) -> Adapter:
    """Read the adapter of a task; `with_heads`: its heads for classification too.

    Raises:
        CheckpointError: the folder holds no LoRA adapter, no such task, or an unknown key or setting.
    """
    config_path, path = folder / CONFIG_FILE, folder / TENSORS_FILE
    _check_folder(folder)
    config = read_lora_config(config_path)
    tensors = adapter_tensors(folder)
    keys = {name: parse_key(path, name) for name in tensors if not is_of_training(name)}
    check_patterns(config_path, read_json(config_path, dict[str, Any]), {key.trained for key in keys.values()})
    tasks = _tasks(keys.values())
    if tasks and task not in tasks:
        raise CheckpointError(f"{path}: {unknown('task', task, sorted(tasks))}")
    own = [_KeyedTensor(key, tensors[name]) for name, key in keys.items() if key.task in ("", task)]
    for each in own:
        check_is_float(each.tensor)
    heads = [each.tensor.name for each in own if each.key.is_unused(with_heads=with_heads)]
    used = [each for each in own if not each.key.is_unused(with_heads=with_heads)]
    if not used:
        raise CheckpointError(f"{path}: {_emptiness(heads)}")
    if heads:
        logger.info("%s: left out, because no embedding needs them: %s", path, ", ".join(heads))
    rows = [_token_rows(path, config, each) for each in used if each.key.part == TOKEN_ROWS]
    if config.trainable_token_indices and not rows:
        raise CheckpointError(
            f"{config_path}: trainable_token_indices has tokens, the file has no rows for them; are both from one "
            "training run?"
        )
    parts = _parts(path, used)
    # A file of several tasks belongs to a model with code of its own, and names modules as that code does.
    if not tasks:
        # PEFT changes a table like its tied head, which alone may be chosen.
        tied = {module for module in parts if config.ensure_weight_tying and "lora_embedding_A" in parts[module]}
        config.check(config_path, sorted(parts.keys() - tied))
    updates = [_update(path, config, trained, tensors) for trained, tensors in parts.items()]
    return Adapter(
        folder,
        {CONFIG_FILE: config_path, TENSORS_FILE: path},
        {update.path: update for update in updates},
        _replacements(path, used),
        {new.path: new for new in rows},
    )


def _parts(path: Path, used: Iterable[_KeyedTensor]) -> dict[str, dict[str, StoredTensor]]:
    """Parts of the updates, by module as it was trained."""
    parts: dict[str, dict[str, StoredTensor]] = {}
    for each in used:
        if each.key.part not in ("", TOKEN_ROWS):
            first = parts.setdefault(each.key.trained, {}).setdefault(each.key.slot, each.tensor)
            _check_same(path, first, each.tensor)
    return parts


def _replacements(path: Path, used: Iterable[_KeyedTensor]) -> dict[str, StoredTensor]:
    """Tensors that replace those of the backbone, by name."""
    tensors: dict[str, StoredTensor] = {}
    for each in used:
        if not each.key.part:
            _check_same(path, tensors.setdefault(each.key.slot, each.tensor), each.tensor)
    return tensors


def file_tasks(folder: Path) -> set[str]:
    """Names of the tasks in a file of several; empty if it is of one. Errors as `adapter_tensors`."""
    path = folder / TENSORS_FILE
    return _tasks(parse_key(path, name) for name in adapter_tensors(folder) if not is_of_training(name))


def _tasks(keys: Iterable[AdapterKey]) -> set[str]:
    return {key.task for key in keys if key.task}


def _check_folder(folder: Path) -> None:
    """Name the folder with the adapter where it is below the one that was passed, as PEFT saves named adapters."""
    if exists(folder / CONFIG_FILE):
        return
    below = sorted(path.parent for level in ("*", "*/*") for path in folder.glob(f"{level}/{CONFIG_FILE}"))
    if below:
        others = f" (so do {len(below) - 1} others)" if len(below) > 1 else ""
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; {below[0]} holds an adapter{others}: pass that folder")


def adapter_tensors(folder: Path) -> Mapping[str, StoredTensor]:
    """Tensors in the folder of an adapter, by key.

    Raises:
        CheckpointError: there is no file of them, or it is damaged.
    """
    path = folder / TENSORS_FILE
    if not exists(path):
        raise CheckpointError(
            f"{folder}: no {path.name}; other formats are not read (pickled weights run code when they are loaded). "
            "PEFT writes one: PeftModel.from_pretrained(model, folder).save_pretrained(folder)"
        )
    return open_safetensors(check_file(path, folder), CheckpointError).tensors


def _token_rows(path: Path, config: LoraConfig, each: _KeyedTensor) -> TokenRows:
    indices = config.tokens(each.key.trained)
    if not indices or len(set(indices)) < len(indices):
        raise CheckpointError(
            f"{path}: {each.tensor.name} has rows of a table, trainable_token_indices of adapter_config.json has "
            f"{'a token twice' if indices else 'no tokens'} for it; are both from one training run?"
        )
    return TokenRows(each.key.module, indices, each.tensor)


def _check_same(path: Path, first: StoredTensor, second: StoredTensor) -> None:
    """Refuse two values for one tensor; PEFT saves the bias of a saved module twice where all biases are trained."""
    if first is second:
        return
    if first.shape != second.shape or not np.array_equal(first.raw(), second.raw()):
        raise CheckpointError(
            f"{path}: {first.name} and {second.name} are values of the same tensor and differ; remove one of them"
        )


def _emptiness(heads: list[str]) -> str:
    if heads:
        return f"changes nothing but heads ({heads[0]}), which no embedding has; leave the adapter out"
    return "holds no tensors; train the adapter, or leave it out"


def _update(path: Path, config: LoraConfig, trained: str, tensors: Mapping[str, StoredTensor]) -> LowRankUpdate:
    module, embedding = WRAPPER.sub("", trained), "lora_embedding_A" in tensors
    a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    others = set(tensors) - {a, b, "lora_magnitude_vector", "lora_B.bias"}
    if a not in tensors or b not in tensors or others:
        raise CheckpointError(f"{path}: {module} has {', '.join(sorted(tensors))}; expected {a} and {b}")
    _check_flags(path, config, module, tensors)
    if len(tensors[a].shape) != 2 or len(tensors[b].shape) != 2:
        raise CheckpointError(f"{path}: {module}: {a} and {b} must be matrices")
    rank = tensors[a].shape[0]
    configured = config.rank(path, trained)
    if configured != rank:
        # The scale depends on the rank: a file and a configuration that disagree must not be merged.
        raise CheckpointError(
            f"{path}: {module} has rank {rank}, adapter_config.json has {configured}; are both from one training run?"
        )
    return LowRankUpdate(
        path=module,
        a=tensors[a],
        b=tensors[b],
        scale=config.scale(path, trained, rank),
        layout="embedding" if embedding else "linear",
        magnitude=tensors.get("lora_magnitude_vector"),
        b_bias=tensors.get("lora_B.bias"),
    )


def _check_flags(path: Path, config: LoraConfig, module: str, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse a file with or without magnitude vectors or biases of B, against adapter_config.json."""
    for slot, setting, value in (
        ("lora_magnitude_vector", "use_dora", config.use_dora),
        ("lora_B.bias", "lora_bias", config.lora_bias),
    ):
        if (slot in tensors) != bool(value):
            raise CheckpointError(
                f"{path}: {module} has {'a' if slot in tensors else 'no'} {slot}, adapter_config.json has {setting} "
                f"{str(bool(value)).lower()}; are both from one training run?"
            )
    if config.use_dora and config.lora_bias:
        raise CheckpointError(f"{path}: {module} has a magnitude vector and a bias of B, which PEFT does not define")
