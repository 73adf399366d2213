"""Everything that an export has to know, decided before anything is written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import CheckpointError, PackError, unknown
from embedpack.pack import Pooling, Source, describe_file
from embedpack.session import GraphSession
from embedpack.text_encoder import TextEncoder
from embedpack.tokenizer import TextTokenizer
from embedpack_export.adapter import PeftAdapter, read_adapter
from embedpack_export.calibration import CalibrationSet, read_calibration
from embedpack_export.checkpoint import (
    Checkpoint,
    SentenceTransformersConfig,
    read_checkpoint,
    read_sentence_transformers,
)
from embedpack_export.families import TextModel, find_family
from embedpack_export.settings import BASE_TASK, ExportSettings

# Files of the pack are named after tasks.
TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TaskPlan:
    """One task: its adapter (None: the backbone as it is) and its prompts."""

    adapter: PeftAdapter | None
    prompts: Mapping[str, str]
    default_prompt_name: str | None


@dataclass(frozen=True)
class ExportPlan:
    """The decisions of an export."""

    checkpoint: Checkpoint
    model: TextModel
    tasks: Mapping[str, TaskPlan]
    pooling: Pooling
    max_tokens: int
    truncate_dims: tuple[int, ...]
    tokenizer_json: bytes
    calibration: CalibrationSet
    source: Source

    @property
    def name(self) -> str:
        """Name of the model: that of the checkpoint's folder."""
        return self.source.name

    def encoder(self, session: GraphSession) -> TextEncoder:
        """A graph with the tokenizer as the pack's reader will open it."""
        tokenizer = TextTokenizer(self.tokenizer_json, self.max_tokens)
        return TextEncoder(session, tokenizer, self.model.pad_token_id, warn_when_cut=False)


def make_plan(settings: ExportSettings) -> ExportPlan:
    """Read what there is and decide.

    Raises:
        CheckpointError: the checkpoint or an adapter is damaged, contradictory or leaves a decision open.
    """
    checkpoint = read_checkpoint(settings.checkpoint)
    model = find_family(checkpoint.model_type).read(checkpoint)
    stated = read_sentence_transformers(checkpoint.folder, settings.pooling)
    adapters = {
        task: read_sentence_transformers(folder, settings.pooling) for task, folder in settings.adapters.items()
    }
    tasks = {
        task: _task(settings, task, adapters[task] if adapters[task].prompts else stated) for task in settings.adapters
    } or {BASE_TASK: _task(settings, BASE_TASK, stated)}
    by_folder = {checkpoint.folder: stated, **{settings.adapters[task]: item for task, item in adapters.items()}}
    pooling = settings.pooling or _pooling(by_folder)
    max_tokens = _max_tokens(settings, stated, model)
    tokenizer_json = (checkpoint.folder / "tokenizer.json").read_bytes()
    _check_tokenizer(checkpoint, model, tokenizer_json)
    return ExportPlan(
        checkpoint=checkpoint,
        model=model,
        tasks=tasks,
        pooling=pooling,
        max_tokens=max_tokens,
        truncate_dims=_truncate_dims(settings, [stated, *adapters.values()], model),
        tokenizer_json=tokenizer_json,
        calibration=read_calibration(settings.calibrate),
        source=_source(settings, checkpoint, tasks, f"{pooling}/{max_tokens}"),
    )


def _task(settings: ExportSettings, task: str, stated: SentenceTransformersConfig) -> TaskPlan:
    if not TASK_NAME.fullmatch(task):
        raise CheckpointError(
            f"task {task!r}: a task is named with letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    default = stated.default_prompt_name
    if default is not None and default not in stated.prompts:
        raise CheckpointError(f"config_sentence_transformers.json: {unknown('prompt', default, stated.prompts)}")
    folder = settings.adapters.get(task)
    return TaskPlan(None if folder is None else read_adapter(folder, task), stated.prompts, default)


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


def _max_tokens(settings: ExportSettings, stated: SentenceTransformersConfig, model: TextModel) -> int:
    if settings.max_tokens is None:
        return min(stated.max_tokens or model.max_tokens, model.max_tokens)
    if not 3 <= settings.max_tokens <= model.max_tokens:
        raise CheckpointError(
            f"--max-length {settings.max_tokens} is not possible; this model takes 3 to {model.max_tokens} tokens"
        )
    return settings.max_tokens


def _truncate_dims(
    settings: ExportSettings, stated: list[SentenceTransformersConfig], model: TextModel
) -> tuple[int, ...]:
    """Truncations that every task was trained for, or that the user asks for; the full dimension is always one."""
    lists = [set(item.truncate_dims) for item in stated if item.truncate_dims]
    common = set.intersection(*lists) if lists else set(model.truncate_dims)
    dims = sorted({*(settings.truncate_dims or common), model.dimensions})
    if dims[0] < 1 or dims[-1] > model.dimensions:
        raise CheckpointError(f"truncations {dims} are not possible; the vectors have {model.dimensions} dimensions")
    return tuple(dims)


def _check_tokenizer(checkpoint: Checkpoint, model: TextModel, tokenizer_json: bytes) -> None:
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
    for task, folder in settings.adapters.items():
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            paths[f"adapters/{task}/{name}"] = folder / name
    files = {name: describe_file(path).sha256 for name, path in sorted(paths.items())}
    prompts = {task: dict(plan.prompts) for task, plan in tasks.items()}
    decisive = json.dumps([files, prompts, choices], sort_keys=True)
    return Source(
        # Not resolve(): a link's own name is what the user calls the model.
        name=Path(os.path.abspath(checkpoint.folder)).name,
        revision=None,
        files=files,
        fingerprint=hashlib.sha256(decisive.encode()).hexdigest(),
    )
