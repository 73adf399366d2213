"""Configuration that sentence-transformers keeps next to the weights: pooling, maximum length, prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack.pack.manifest import Pooling
from embedpack_export.sources.checkpoint import Json, read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import KeyTable, check_keys, shown
from embedpack_export.sources.sentence_transformers_keys import LIMITS, MODULES, NORMALIZE, POOLING, SETTINGS

# Modules of sentence-transformers that the graphs' heads cover, in their order; Dropout does nothing outside training.
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize", "Dropout")
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
POOLINGS: Mapping[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
POOLING_FLAGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
# With fewer tokens, no token of the text is left between the special ones.
Length = Annotated[int, msgspec.Meta(ge=3)]


class _Module(msgspec.Struct, frozen=True):
    """An entry of modules.json."""

    type: str
    path: str

    @property
    def kind(self) -> str:
        return self.type.rsplit(".", 1)[-1]


class _TokenizerArguments(msgspec.Struct, frozen=True):
    model_max_length: Length | None = None


class _Limits(msgspec.Struct, frozen=True):
    """sentence_bert_config.json."""

    max_seq_length: Length | None = None
    do_lower_case: bool | None = None
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


class _Pooling(msgspec.Struct, frozen=True):
    """config.json of a Pooling module."""

    pooling_mode: str | tuple[str, ...] | None = None
    include_prompt: bool = True


@dataclass(frozen=True)
class SentenceTransformersConfig:
    """Values of the files of sentence-transformers; None or empty if a file is missing."""

    folder: Path
    transformer: Path  # folder of the Transformer module, with the weights and the tokenizer
    modules: Sequence[str]  # kinds of the modules
    pooling: Pooling | None
    include_prompt: bool  # false: tokens of the prompt are not pooled
    max_tokens: int | None
    lower_case: bool  # texts in lower case
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    truncate_dims: tuple[int, ...]
    similarity: str | None  # similarity_fn_name

    def check_similarity(self, modules: Sequence[str]) -> None:
        """Refuse a similarity that ranks otherwise than cosine; `modules` are those of the model.

        Raises:
            CheckpointError: it is neither cosine nor, for vectors of length 1, dot or euclidean.
        """
        same = ("cosine", "dot", "euclidean") if "Normalize" in modules else ("cosine",)
        if self.similarity is None or self.similarity in same:
            return
        raise CheckpointError(
            f"{self.folder / 'config_sentence_transformers.json'}: similarity_fn_name is {shown(self.similarity)}; "
            f"supported: {', '.join(same)}; vectors of a pack have length 1 and are ranked by cosine. Add a Normalize "
            "module to modules.json, or remove the key, if that ranking is wanted"
        )


def read_sentence_transformers(
    folder: Path, override: Pooling | None = None, own_modules: Collection[str] = ()
) -> SentenceTransformersConfig:
    """Read modules.json, the configurations of its modules and config_sentence_transformers.json.

    `folder` is that of a checkpoint or an adapter; `override` replaces the pooling of the Pooling module;
    `own_modules` are types of modules in files of the checkpoint that its family covers.

    Raises:
        CheckpointError: a file is damaged, or a key of it asks for a step that the graphs do not have.
    """
    modules = _modules(folder / "modules.json", own_modules)
    transformer, pooling = transformer_folder(folder), _Pooling()
    for module in modules:
        path = folder / module.path / "config.json"
        if module.kind == "Pooling":
            pooling = _read(path, _Pooling, POOLING, folder)
        if module.kind == "Normalize" and exists(path):
            check_keys(path, read_json(path, dict[str, Any], folder), NORMALIZE)
    limits_file = next((transformer / name for name in LIMITS_FILES if exists(transformer / name)), None)
    limits = _Limits() if limits_file is None else _read(limits_file, _Limits, LIMITS, folder)
    path = folder / "config_sentence_transformers.json"
    settings = _read(path, _Settings, SETTINGS, folder) if exists(path) else _Settings()
    kinds = [module.kind for module in modules]
    return SentenceTransformersConfig(
        folder=folder,
        transformer=transformer,
        modules=kinds,
        pooling=_pooling(folder, modules, override),
        include_prompt=pooling.include_prompt,
        max_tokens=limits.max_tokens,
        lower_case=bool(limits.do_lower_case),
        prompts={name: text for name, text in settings.prompts.items() if text is not None},
        default_prompt_name=settings.default_prompt_name,
        truncate_dims=(*settings.matryoshka_dims, *(() if settings.truncate_dim is None else (settings.truncate_dim,))),
        similarity=settings.similarity_fn_name,
    )


def transformer_folder(folder: Path) -> Path:
    """Folder of the Transformer module of a checkpoint: the folder itself, or e.g. 0_Transformer in it.

    Raises:
        CheckpointError: modules.json is damaged.
    """
    path = folder / "modules.json"
    modules = _entries(path) if exists(path) else []
    places = (folder / module.path for module in modules if module.kind == "Transformer")
    return next((place for place in places if exists(place / "config.json")), folder)


def _read(path: Path, kind: type[Json], keys: KeyTable, folder: Path) -> Json:
    check_keys(path, read_json(path, dict[str, Any], folder), keys)
    return read_json(path, kind, folder)


def _modules(path: Path, own_modules: Collection[str]) -> list[_Module]:
    if not exists(path):
        return []
    modules = _entries(path)
    for module in modules:
        if module.kind not in KNOWN_MODULES:
            raise CheckpointError(f"{path}: {unknown('module', module.kind, KNOWN_MODULES)}")
        if not module.type.startswith("sentence_transformers.") and module.type not in own_modules:
            raise CheckpointError(
                f"{path}: type is {module.type!r}, code of the checkpoint that is not run; if sentence-transformers' "
                f"module does the same, make it sentence_transformers.models.{module.kind}"
            )
    order = [module.kind for module in modules if module.kind != "Dropout"]
    if order != [kind for kind in KNOWN_MODULES if kind in order]:
        raise CheckpointError(
            f"{path}: modules in the order {', '.join(order)}; supported: Transformer, Pooling, Normalize"
        )
    return modules


def _entries(path: Path) -> list[_Module]:
    modules = read_json(path, list[_Module])
    for number, entry in enumerate(read_json(path, list[dict[str, Any]])):
        check_keys(path, entry, MODULES, f"[{number}]")
    for module in modules:
        if not module.path.isprintable() or Path(module.path).is_absolute() or ".." in Path(module.path).parts:
            raise CheckpointError(f"{path}: {module.path!r} is no path, or leads outside of the folder; correct it")
    return modules


def _pooling(folder: Path, modules: Sequence[_Module], override: Pooling | None) -> Pooling | None:
    paths = [folder / module.path / "config.json" for module in modules if module.kind == "Pooling"]
    if override is not None or not paths:
        return override if paths else None
    (path,) = paths
    config = read_json(path, dict[str, Any], folder)
    # Newer files have {"pooling_mode": "mean"} or a list, older ones one flag per mode.
    mode = read_json(path, _Pooling, folder).pooling_mode
    names = (mode,) if isinstance(mode, str) else mode
    if names is None:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        if not set(flags) <= set(POOLING_FLAGS):
            raise CheckpointError(f"{path}: asks for {', '.join(flags)}; known: {', '.join(POOLING_FLAGS)}")
        # Without any flag, sentence-transformers takes the mean.
        names = tuple(flag.split("_")[2] for flag in flags or ["pooling_mode_mean_tokens"])
    for name in names:
        if name not in POOLINGS:
            raise CheckpointError(f"{path}: {unknown('pooling_mode', name, POOLINGS)}")
    if len(names) != 1:
        raise CheckpointError(
            f"{path}: asks for {len(names)} ways of pooling ({', '.join(names)}), one is possible; pass --pooling"
        )
    return POOLINGS[names[0]]
