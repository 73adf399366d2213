"""Model source: the files of a checkpoint and its adapters, with all that decides the full-precision vectors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from embedpack.errors import CheckpointError, PackError
from embedpack.inputs.processor import Processor
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.digests import describe_file
from embedpack.pack.manifest import Modality, Pooling
from embedpack_export.families import Model, find_family
from embedpack_export.planning.tasks import TaskPlan, plan_tasks
from embedpack_export.planning.token_head import ModelWithTasks, take_token_head
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from embedpack_export.sources.files import MAX_JSON_BYTES, check_file, exists, read_file
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig, read_sentence_transformers

# Resizing and normalization of images decide their vectors as much as the weights do.
PROCESSOR_CONFIG = "preprocessor_config.json"


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint with its adapters; `read_model_source` opens it."""

    checkpoint: Checkpoint  # the checkpoint, with the projector for multi-vectors if only the adapters have one
    model: Model  # the checkpoint as its family reads it
    tasks: Mapping[str, TaskPlan]
    pooling: Pooling  # pooling of single vectors
    max_tokens: int  # maximum length of an input, special tokens included
    truncate_dims: tuple[int, ...]  # truncations; of a source those that every task was trained for
    tokenizer_json: bytes
    pad_token_id: int  # id of the padding token, a row of the embedding table

    @property
    def parameters(self) -> int:
        """Number of values in the checkpoint."""
        return sum(math.prod(tensor.shape) for tensor in self.checkpoint.tensors.values())

    def is_text_tensor(self, name: str) -> bool:
        """True if a tensor belongs to the text graph, or to no part of the model: that graph then refuses it."""
        return not any(pattern.search(name) for pattern in self.model.other_tensors)

    @cached_property
    def processor(self) -> Processor:
        """Processor of the inputs, the same as a reader of the pack has."""
        image = None if self.model.vision is None else self.model.vision.image
        tokenizer = TextTokenizer(self.tokenizer_json, self.max_tokens)
        return Processor(tokenizer, self.pad_token_id, image, self.model.dimensions)

    @cached_property
    def files(self) -> dict[str, str]:
        """sha256 of each file of the checkpoint and its adapters, by name; reads them all."""
        folder = self.checkpoint.folder
        paths = {name: folder / name for name in ("config.json", "tokenizer.json", *self.checkpoint.weight_files)}
        if exists(folder / PROCESSOR_CONFIG):
            paths[PROCESSOR_CONFIG] = check_file(folder / PROCESSOR_CONFIG, folder, MAX_JSON_BYTES)
        adapters = {task: plan.adapter.folder for task, plan in self.tasks.items() if plan.adapter is not None}
        for task, adapter in adapters.items():
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                paths[f"adapters/{task}/{name}"] = adapter / name
        return {name: describe_file(path).sha256 for name, path in sorted(paths.items())}

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that decides the vectors before quantization."""
        prompts = {task: dict(plan.prompts) for task, plan in self.tasks.items()}
        content = json.dumps([self.files, prompts, f"{self.pooling}/{self.max_tokens}"], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_model_source(
    folder: Path,
    *,
    adapters: Mapping[str, Path],
    tasks: tuple[str, ...] = (),
    modality: Modality | None = None,
    pooling: Pooling | None = None,
    max_tokens: int | None = None,
) -> ModelSource:
    """Open a checkpoint with its adapters; see `ExportSettings` for the arguments.

    Raises:
        CheckpointError: the checkpoint or an adapter is damaged, contradictory or leaves a decision open.
    """
    checkpoint = read_checkpoint(folder)
    model = _read_model(checkpoint, modality)
    config = read_sentence_transformers(folder, pooling)
    by_task = {task: read_sentence_transformers(adapter, pooling) for task, adapter in adapters.items()}
    by_folder = {folder: config, **{adapters[task]: adapter for task, adapter in by_task.items()}}
    plans = plan_tasks(model, adapters, tasks, config, by_task)
    complete = take_token_head(ModelWithTasks(checkpoint, model, plans))
    pooling = pooling or model.pooling or _pooling(by_folder)
    length = _max_tokens(max_tokens, config, model)
    tokenizer_json = read_file(folder / "tokenizer.json", folder, MAX_JSON_BYTES)
    _check_tokenizer(folder, model, tokenizer_json)
    return ModelSource(
        checkpoint=complete.checkpoint,
        model=complete.model,
        tasks=complete.tasks,
        pooling=pooling,
        max_tokens=length,
        truncate_dims=_common_truncations([config, *by_task.values()], model),
        tokenizer_json=tokenizer_json,
        pad_token_id=_pad_token_id(model, None),
    )


def _read_model(checkpoint: Checkpoint, modality: Modality | None) -> Model:
    family = find_family(checkpoint.model_type)
    model = family.read(checkpoint)
    if family.read_vision is None:
        if modality == "text+image":
            raise CheckpointError("--modality text+image: this model reads texts only")
        return model
    if modality == "text":
        return replace(model, text=model.text_alone or model.text)
    return replace(model, vision=family.read_vision(checkpoint))


def _pooling(configs: Mapping[Path, SentenceTransformersConfig]) -> Pooling:
    poolings = {folder: config.pooling for folder, config in configs.items() if config.pooling is not None}
    if not poolings:
        raise CheckpointError(
            f"{next(iter(configs))}: no modules.json, so the pooling of the tokens is unknown; "
            "pass --pooling mean|cls|last"
        )
    (first, pooling), *others = poolings.items()
    for folder, other in others:
        if other != pooling:
            raise CheckpointError(f"{first} has {pooling} pooling, {folder} has {other}; pass --pooling")
    return pooling


def _pad_token_id(model: Model, of_tokenizer: int | None) -> int:
    """The first row of the embedding table among the padding tokens of config.json and the tokenizer, else the end."""
    candidates = (model.pad_token_id, of_tokenizer, model.eos_token_id)
    return next((token for token in candidates if token is not None and 0 <= token < model.vocabulary), 0)


def _max_tokens(max_tokens: int | None, config: SentenceTransformersConfig, model: Model) -> int:
    if max_tokens is None:
        return min(config.max_tokens or model.max_tokens, model.max_tokens)
    if not 3 <= max_tokens <= model.max_tokens:
        raise CheckpointError(
            f"--max-length {max_tokens} is not possible for this model; pass 3 to {model.max_tokens} tokens"
        )
    return max_tokens


def _common_truncations(configs: list[SentenceTransformersConfig], model: Model) -> tuple[int, ...]:
    """Truncations that all files name that name any, or those of the family."""
    dims = [set(config.truncate_dims) for config in configs if config.truncate_dims]
    return tuple(sorted(set.intersection(*dims))) if dims else model.truncate_dims


def _check_tokenizer(folder: Path, model: Model, tokenizer_json: bytes) -> None:
    try:
        tokenizer = TextTokenizer(tokenizer_json, model.max_tokens)
    except PackError as cause:
        raise CheckpointError(f"{folder}: {cause}") from cause
    if tokenizer.largest_id >= model.vocabulary:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: has ids up to {tokenizer.largest_id}, the embedding table only "
            f"{model.vocabulary} rows; the tokenizer belongs to another model"
        )
