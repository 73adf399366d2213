"""Configuration that sentence-transformers keeps next to the weights: pooling, maximum length, prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from embedpack.pack.manifest import Pooling
from embedpack_export.sources.checkpoint import Json, read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import KeyTable, check_keys
from embedpack_export.sources.layer_modules import LayerModule, read_layer
from embedpack_export.sources.logit_score import LOGIT_LIMITS, LogitScore, read_logit_score
from embedpack_export.sources.modules_json import (
    LAYERS,
    Module,
    gives_multi_vectors,
    gives_token_logits,
    read_modules,
    transformer_folder,
)
from embedpack_export.sources.multi_vector_config import MultiVectorConfig
from embedpack_export.sources.multi_vector_files import SETTINGS_FILE, read_multi_vector_files
from embedpack_export.sources.multi_vector_keys import MULTI_LIMITS
from embedpack_export.sources.pooling_config import PoolingConfig, read_pooling
from embedpack_export.sources.sentence_transformers_keys import (
    CLASSIFICATION,
    CROSS_ENCODER,
    LIMITS,
    NORMALIZE,
    SETTINGS,
)

# The first of these files that is there has the limits of the Transformer module.
LIMITS_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# Modules with a configuration alone.
CONFIGURED = ("Pooling", "Normalize", "MultiVectorMask")
# With fewer tokens, no token of the text is left between the special ones.
Length = Annotated[int, msgspec.Meta(ge=3)]


class _TokenizerArguments(msgspec.Struct, frozen=True):
    model_max_length: Length | None = None


class _Limits(msgspec.Struct, frozen=True):
    """sentence_bert_config.json."""

    max_seq_length: Length | None = None
    do_lower_case: bool | None = None
    transformer_task: str | None = None
    processor_kwargs: _TokenizerArguments | None = None
    tokenizer_args: _TokenizerArguments | None = None

    @property
    def max_tokens(self) -> int | None:
        arguments = self.processor_kwargs or self.tokenizer_args
        return (arguments.model_max_length if arguments else None) or self.max_seq_length


class _Settings(msgspec.Struct, frozen=True):
    """config_sentence_transformers.json."""

    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None
    matryoshka_dims: tuple[int, ...] = ()
    truncate_dim: int | None = None
    similarity_fn_name: str | None = None
    model_type: str | None = None
    activation_fn: str | None = None

    @property
    def truncations(self) -> tuple[int, ...]:
        """Allowed truncations."""
        return (*self.matryoshka_dims, *(() if self.truncate_dim is None else (self.truncate_dim,)))


@dataclass(frozen=True)
class SentenceTransformersConfig:
    """Values of the files of sentence-transformers; None or empty if a file is missing."""

    folder: Path
    files: Mapping[str, Path]  # files that were read, by their names in the folder
    transformer: Path  # folder of the Transformer module, with the weights and the tokenizer
    modules: Sequence[str]  # kinds of the modules without Dropout; empty without modules.json
    layers: Sequence[LayerModule]  # layers between Pooling and Normalize
    pooling: Pooling | None
    include_prompt: bool  # false: tokens of the prompt are not pooled
    max_tokens: int | None
    lower_case: bool  # texts in lower case
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    truncate_dims: tuple[int, ...]
    similarity: str | None  # similarity_fn_name
    multi: MultiVectorConfig | None  # settings of a model for multi-vectors; None: it gives single vectors
    logits: LogitScore | None  # the score is the difference of two logits
    is_cross_encoder: bool  # the files are those of a CrossEncoder
    activation: str | None  # activation_fn


def read_sentence_transformers(
    folder: Path, override: Pooling | None = None, own_modules: Collection[str] = ()
) -> SentenceTransformersConfig:
    """Read modules.json, the configurations of its modules and config_sentence_transformers.json.

    `folder` is that of a checkpoint or an adapter; `override` replaces the pooling of the Pooling module;
    `own_modules` are types of modules in files of the checkpoint that its family covers.

    Raises:
        CheckpointError: a file is damaged, or a key of it asks for a step that the graphs do not have.
    """
    modules = read_modules(folder / "modules.json", own_modules)
    transformer = transformer_folder(folder)
    pooling = _pooling(folder, modules, override)
    limits_file = next((transformer / name for name in LIMITS_FILES if exists(transformer / name)), None)
    if gives_multi_vectors(modules):
        return _of_multi_vectors(folder, modules, limits_file)
    layers = [read_layer(folder, module) for module in modules if module.kind in LAYERS]
    _check_normalize(folder, modules)
    logits = read_logit_score(folder, transformer, modules[1]) if gives_token_logits(modules) else None
    keys = LIMITS if logits is None else LOGIT_LIMITS
    limits = _Limits() if limits_file is None else _read(limits_file, _Limits, keys, folder)
    path = folder / SETTINGS_FILE
    settings = _read(path, _Settings, SETTINGS, folder) if exists(path) else _Settings()
    of_modules = [file for layer in (*layers, *(() if logits is None else (logits,))) for file in layer.files]
    return SentenceTransformersConfig(
        folder=folder,
        files=_files(folder, modules, of_modules, limits_file),
        transformer=transformer,
        modules=[module.kind for module in modules],
        layers=layers,
        pooling=None if pooling is None else pooling.pooling,
        include_prompt=pooling is None or pooling.include_prompt,
        max_tokens=limits.max_tokens,
        lower_case=bool(limits.do_lower_case),
        prompts={name: text for name, text in settings.prompts.items() if text is not None},
        default_prompt_name=settings.default_prompt_name,
        truncate_dims=settings.truncations,
        similarity=settings.similarity_fn_name,
        multi=None,
        logits=logits,
        is_cross_encoder=settings.model_type == CROSS_ENCODER or limits.transformer_task == CLASSIFICATION,
        activation=settings.activation_fn,
    )


def _of_multi_vectors(folder: Path, modules: Sequence[Module], limits_file: Path | None) -> SentenceTransformersConfig:
    """Configuration of a model for multi-vectors; its prompts are part of `multi`."""
    limits = _Limits() if limits_file is None else _read(limits_file, _Limits, MULTI_LIMITS, folder)
    multi = read_multi_vector_files(folder, modules, limits_file)
    settings = read_json(folder / SETTINGS_FILE, _Settings, folder)
    return SentenceTransformersConfig(
        folder=folder,
        files=_files(folder, modules, [file for layer in multi.layers for file in layer.files], limits_file),
        transformer=transformer_folder(folder),
        modules=[module.kind for module in modules],
        layers=(),
        pooling=None,
        include_prompt=True,
        max_tokens=multi.max_tokens,
        lower_case=bool(limits.do_lower_case),
        prompts={},
        default_prompt_name=None,
        truncate_dims=settings.truncations,
        similarity=None,
        multi=multi,
        logits=None,
        is_cross_encoder=False,
        activation=None,
    )


def _pooling(folder: Path, modules: Sequence[Module], override: Pooling | None) -> PoolingConfig | None:
    """Configuration of the Pooling module, if there is one."""
    paths = [folder / module.path / "config.json" for module in modules if module.kind == "Pooling"]
    return read_pooling(paths[0], folder, override) if paths else None


def _check_normalize(folder: Path, modules: Sequence[Module]) -> None:
    for module in modules:
        path = folder / module.path / "config.json"
        if module.kind == "Normalize" and exists(path):
            check_keys(path, read_json(path, dict[str, Any], folder), NORMALIZE)


def _files(
    folder: Path, modules: Sequence[Module], of_layers: Sequence[Path], limits_file: Path | None
) -> dict[str, Path]:
    """The files of sentence-transformers in a folder that exist, by name."""
    configs = (folder / module.path / "config.json" for module in modules if module.kind in CONFIGURED)
    settings = (folder / name for name in ("modules.json", SETTINGS_FILE))
    limits = () if limits_file is None else (limits_file,)
    found = [path for path in (*settings, *configs, *of_layers, *limits) if exists(path)]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _read(path: Path, kind: type[Json], keys: KeyTable, folder: Path) -> Json:
    check_keys(path, read_json(path, dict[str, Any], folder), keys)
    return read_json(path, kind, folder)
