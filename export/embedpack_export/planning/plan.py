"""Everything that an export has to know, decided before anything is written."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from embedpack.errors import CheckpointError, PackError
from embedpack.inputs.processor import Processor
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.folder import describe_file
from embedpack.pack.manifest import Modality, Pooling, Source
from embedpack_export.families import Model, find_family
from embedpack_export.planning.calibration_texts import CalibrationSet, read_calibration
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.planning.tasks import TaskPlan, plan_tasks
from embedpack_export.planning.token_head import take_token_head
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig, read_sentence_transformers

# How images are resized and normalised decides their vectors as much as the weights do.
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class ExportPlan:
    """The decisions of an export."""

    checkpoint: Checkpoint
    model: Model
    tasks: Mapping[str, TaskPlan]
    pooling: Pooling
    max_tokens: int
    truncate_dims: tuple[int, ...]
    tokenizer_json: bytes
    calibration: CalibrationSet
    source: Source
    seed: int

    @property
    def parameters(self) -> int:
        """Values of the checkpoint."""
        return sum(math.prod(tensor.shape) for tensor in self.checkpoint.tensors.values())

    def is_text_tensor(self, name: str) -> bool:
        """Whether a tensor belongs to the graph of texts; so does what belongs to no part, and is refused there."""
        return not any(vision.search(name) for vision in self.model.other_tensors)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.source.name

    @cached_property
    def processor(self) -> Processor:
        """How inputs become token ids, as the pack's reader will do it."""
        image = None if self.model.vision is None else self.model.vision.image
        tokenizer = TextTokenizer(self.tokenizer_json, self.max_tokens)
        return Processor(tokenizer, self.model.pad_token_id, image, self.model.dimensions)


def make_plan(settings: ExportSettings) -> ExportPlan:
    """Read what there is and decide.

    Raises:
        CheckpointError: the checkpoint or an adapter is damaged, contradictory or leaves a decision open.
    """
    checkpoint = read_checkpoint(settings.checkpoint)
    model = _with_modality(find_family(checkpoint.model_type).read(checkpoint), settings.modality)
    stated = read_sentence_transformers(checkpoint.folder, settings.pooling)
    by_task = {task: read_sentence_transformers(folder, settings.pooling) for task, folder in settings.adapters.items()}
    by_folder = {checkpoint.folder: stated, **{settings.adapters[task]: item for task, item in by_task.items()}}
    checkpoint, model, tasks = take_token_head(checkpoint, model, plan_tasks(settings, model, stated, by_task))
    pooling = settings.pooling or model.pooling or _pooling(by_folder)
    max_tokens = _max_tokens(settings, stated, model)
    tokenizer_json = (checkpoint.folder / "tokenizer.json").read_bytes()
    _check_tokenizer(checkpoint, model, tokenizer_json)
    return ExportPlan(
        checkpoint=checkpoint,
        model=model,
        tasks=tasks,
        pooling=pooling,
        max_tokens=max_tokens,
        truncate_dims=_truncate_dims(settings, [stated, *by_task.values()], model),
        tokenizer_json=tokenizer_json,
        calibration=read_calibration(settings.calibrate),
        source=_source(settings, checkpoint, tasks, f"{pooling}/{max_tokens}"),
        seed=settings.seed,
    )


def _with_modality(model: Model, modality: Modality | None) -> Model:
    if modality == "text+image" and model.vision is None:
        raise CheckpointError("--modality text+image: this model reads texts only")
    if modality == "text" and model.vision is not None:
        return replace(model, text=model.text_alone or model.text, vision=None)
    return model


def _pooling(stated: Mapping[Path, SentenceTransformersConfig]) -> Pooling:
    found = {folder: item.pooling for folder, item in stated.items() if item.pooling is not None}
    if not found:
        raise CheckpointError(
            f"{next(iter(stated))}: nothing says how to pool the tokens (no modules.json); pass --pooling mean|cls|last"
        )
    (first, pooling), *others = found.items()
    for folder, other in others:
        if other != pooling:
            raise CheckpointError(f"{first} says {pooling} pooling, {folder} says {other}; pass --pooling")
    return pooling


def _max_tokens(settings: ExportSettings, stated: SentenceTransformersConfig, model: Model) -> int:
    if settings.max_tokens is None:
        return min(stated.max_tokens or model.max_tokens, model.max_tokens)
    if not 3 <= settings.max_tokens <= model.max_tokens:
        raise CheckpointError(
            f"--max-length {settings.max_tokens} is not possible; this model takes 3 to {model.max_tokens} tokens"
        )
    return settings.max_tokens


def _truncate_dims(settings: ExportSettings, stated: list[SentenceTransformersConfig], model: Model) -> tuple[int, ...]:
    """Truncations that every task was trained for, or that the user asks for; the full dimension is always one."""
    lists = [set(item.truncate_dims) for item in stated if item.truncate_dims]
    common = set.intersection(*lists) if lists else set(model.truncate_dims)
    dims = sorted({*(settings.truncate_dims or common), model.dimensions})
    if dims[0] < 1 or dims[-1] > model.dimensions:
        raise CheckpointError(f"truncations {dims} are not possible; the vectors have {model.dimensions} dimensions")
    return tuple(dims)


def _check_tokenizer(checkpoint: Checkpoint, model: Model, tokenizer_json: bytes) -> None:
    path = checkpoint.folder / "tokenizer.json"
    try:
        tokenizer = TextTokenizer(tokenizer_json, model.max_tokens)
    except PackError as cause:
        raise CheckpointError(f"{checkpoint.folder}: {cause}") from cause
    if tokenizer.largest_id >= model.vocabulary:
        raise CheckpointError(
            f"{path}: has ids up to {tokenizer.largest_id}, the embedding table only "
            f"{model.vocabulary} rows; the tokenizer belongs to another model"
        )


def _source(settings: ExportSettings, checkpoint: Checkpoint, tasks: Mapping[str, TaskPlan], choices: str) -> Source:
    """Digests of all that went in; the fingerprint covers what decides the vectors before quantization."""
    names = ("config.json", "tokenizer.json", *checkpoint.weight_files)
    paths = {name: checkpoint.folder / name for name in names}
    if (checkpoint.folder / PROCESSOR).is_file():
        paths[PROCESSOR] = checkpoint.folder / PROCESSOR
    adapters = {task: plan.adapter.folder for task, plan in tasks.items() if plan.adapter is not None}
    for task, folder in adapters.items():
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            paths[f"adapters/{task}/{name}"] = folder / name
    files = {name: describe_file(path).sha256 for name, path in sorted(paths.items())}
    prompts = {task: dict(plan.prompts) for task, plan in tasks.items()}
    decisive = json.dumps([files, prompts, choices], sort_keys=True)
    return Source(
        # Not resolve(): a link's own name is what the user calls the model.
        name=settings.name or Path(os.path.abspath(checkpoint.folder)).name,
        revision=settings.revision,
        files=files,
        fingerprint=hashlib.sha256(decisive.encode()).hexdigest(),
    )
