"""Reader of PEFT adapter folders: adapter_config.json and adapter_model.safetensors.

A folder holds one adapter, or those of several tasks in one file as in jina-embeddings-v4, where the task follows
`lora_A` in the key. An adapter with an unknown key is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
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

KEY_PREFIX = "base_model.model."
TENSORS_FILE = "adapter_model.safetensors"
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
# PEFT's name of an adapter that was given none, where the whole state of a model was saved.
UNNAMED = "default"
# Wrapper of the model in the first module of a SentenceTransformer.
WRAPPER = re.compile(r"^0\.(auto_model|model)\.")
# Part of the name of a module that one of `modules_to_save` replaces.
ORIGINAL = "original_module"
# Heads of transformers' classes for language models, classification and question answering: no embedding needs them.
HEADS = re.compile(r"(lm_head|classifier|score|qa_outputs)\.")

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class AdapterKey:
    """A parsed key of the file."""

    trained: str  # name of the module in the model that was trained
    part: str  # one of PARTS; "" for a tensor that replaces one of the model
    task: str  # the task; "" in a file of one adapter
    leaf: str  # "weight", "bias" or ""

    @property
    def module(self) -> str:
        """Name of the module in the transformers model."""
        return WRAPPER.sub("", self.trained)

    @property
    def is_unused(self) -> bool:
        """True if the module belongs to a head that no embedding needs, or is one that a saved module replaces."""
        return HEADS.match(f"{self.module}.") is not None or ORIGINAL in self.module.split(".")

    @property
    def slot(self) -> str:
        """The part or its bias, or the name of the tensor that is replaced.

        PEFT appends ".weight" to the parts of linear layers only.
        """
        if not self.part:
            return f"{self.module}.{self.leaf}"
        return f"{self.part}.bias" if self.leaf == "bias" else self.part


def read_adapter(folder: Path, task: str) -> Adapter:
    """Read the adapter of a task.

    Raises:
        CheckpointError: the folder holds no LoRA adapter, no such task, or an unknown key or setting.
    """
    config_path, path = folder / CONFIG_FILE, folder / TENSORS_FILE
    _check_folder(folder)
    config = read_lora_config(config_path)
    tensors = adapter_tensors(folder)
    keys = {name: parse_key(path, name) for name in tensors}
    check_patterns(config_path, read_json(config_path, dict[str, Any]), {key.trained for key in keys.values()})
    tasks = sorted({key.task for key in keys.values() if key.task})
    if tasks and task not in tasks:
        raise CheckpointError(f"{path}: {unknown('task', task, tasks)}")
    own = {name: key for name, key in keys.items() if key.task in ("", task)}
    heads = [name for name, key in own.items() if key.is_unused]
    parts: dict[str, dict[str, StoredTensor]] = {}
    replacements: dict[str, StoredTensor] = {}
    for name, key in own.items():
        check_is_float(tensors[name])
        if key.is_unused:
            continue
        target = parts.setdefault(key.trained, {}) if key.part else replacements
        _check_same(path, target.setdefault(key.slot, tensors[name]), tensors[name])
    if not parts and not replacements:
        raise CheckpointError(f"{path}: {_emptiness(heads)}")
    if heads:
        logger.info("%s: left out, because no embedding needs them: %s", path, ", ".join(heads))
    updates = [_update(path, config, trained, tensors) for trained, tensors in parts.items()]
    files = {CONFIG_FILE: config_path, TENSORS_FILE: path}
    return Adapter(folder, files, {update.path: update for update in updates}, replacements)


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


def parse_key(path: Path, name: str) -> AdapterKey:
    """Take a key of the file at `path` apart.

    Raises:
        CheckpointError: the key is none of a LoRA or DoRA, a saved module or a bias.
    """
    words = name.removeprefix(KEY_PREFIX).split(".")
    leaf = words.pop() if words[-1] in ("weight", "bias") else ""
    part = next((word for word in words if word in PARTS), "")
    if part:
        module, rest = words[: words.index(part)], words[words.index(part) + 1 :]
    else:
        module, rest = [word for word in words if word not in ("base_layer", "modules_to_save", UNNAMED)], []
    valid = name.startswith(KEY_PREFIX) and module and (part or leaf) and len(rest) <= 1
    if not valid or any("lora" in word or "trainable_tokens" in word for word in module):
        raise CheckpointError(f"{path}: the key {name!r} is unknown; only LoRA and DoRA adapters can be merged")
    task = rest[0] if rest and rest[0] != UNNAMED else ""
    return AdapterKey(".".join(module), part, task, leaf)


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
