"""Configuration that sentence-transformers keeps next to the weights: pooling, maximum length, prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack.pack.manifest import Pooling
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.files import exists

# Modules of sentence-transformers that the graphs' heads cover.
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
POOLING_FLAGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


class _Module(msgspec.Struct, frozen=True):
    """An entry of modules.json."""

    type: str
    path: str


class _Limits(msgspec.Struct, frozen=True):
    """sentence_bert_config.json."""

    # With fewer tokens, no token of the text is left between the special ones.
    max_seq_length: Annotated[int, msgspec.Meta(ge=3)] | None = None


class _Settings(msgspec.Struct, frozen=True):
    """config_sentence_transformers.json; `matryoshka_dims` is our addition."""

    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None
    matryoshka_dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class SentenceTransformersConfig:
    """Values of the files of sentence-transformers; None or empty if a file is missing."""

    pooling: Pooling | None
    max_tokens: int | None
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    truncate_dims: tuple[int, ...]


def read_sentence_transformers(folder: Path, override: Pooling | None = None) -> SentenceTransformersConfig:
    """Read modules.json, the Pooling module, sentence_bert_config.json and config_sentence_transformers.json.

    `folder` is that of a checkpoint or an adapter; `override` replaces the pooling of the Pooling module.

    Raises:
        CheckpointError: a file is damaged, or asks for a step that the graphs do not have.
    """
    transformer, pooling = folder, None
    modules = folder / "modules.json"
    for module in read_json(modules, list[_Module]) if exists(modules) else []:
        kind = module.type.rsplit(".", 1)[-1]
        if kind not in KNOWN_MODULES:
            raise CheckpointError(f"{modules}: {unknown('module', kind, KNOWN_MODULES)}")
        if not module.path.isprintable() or Path(module.path).is_absolute() or ".." in Path(module.path).parts:
            raise CheckpointError(f"{modules}: {module.path!r} is no path, or leads outside of the folder; correct it")
        if kind == "Transformer":
            transformer = folder / module.path
        if kind == "Pooling":
            path = folder / module.path / "config.json"
            pooling = _pooling(read_json(path, dict[str, Any], folder), path, override)
    limits, path = transformer / "sentence_bert_config.json", folder / "config_sentence_transformers.json"
    settings = read_json(path, _Settings) if exists(path) else _Settings()
    return SentenceTransformersConfig(
        pooling=pooling,
        max_tokens=read_json(limits, _Limits, folder).max_seq_length if exists(limits) else None,
        prompts={name: text for name, text in settings.prompts.items() if text is not None},
        default_prompt_name=settings.default_prompt_name,
        truncate_dims=settings.matryoshka_dims,
    )


def _pooling(config: Mapping[str, Any], path: Path, override: Pooling | None) -> Pooling:
    if config.get("include_prompt") is False:
        raise CheckpointError(f"{path}: include_prompt is false; pooling without the prompt is not supported")
    if override is not None:
        return override
    # Newer files have {"pooling_mode": "mean"}, older ones one flag per mode.
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        modes = {flag.split("_")[2]: name for flag, name in POOLING_FLAGS.items()}
        if mode not in modes:
            raise CheckpointError(f"{path}: {unknown('pooling_mode', mode, modes)}")
        return modes[mode]
    poolings = [name for flag, name in POOLING_FLAGS.items() if config.get(flag)]
    others = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(others) != len(poolings):
        raise CheckpointError(f"{path}: asks for {', '.join(others)}; known: {', '.join(POOLING_FLAGS)}")
    if len(poolings) != 1:
        raise CheckpointError(f"{path}: asks for {len(poolings)} ways of pooling, one is possible; pass --pooling")
    return poolings[0]
