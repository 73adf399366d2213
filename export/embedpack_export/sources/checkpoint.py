"""Reading a Hugging Face folder, without torch: config.json, safetensors (one file or shards), tokenizer.json.

What sentence-transformers keeps beside the weights (pooling, maximum length, prompts) is read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack.pack.manifest import Pooling
from embedpack.storage.safetensors import FLOATS, StoredTensor, open_safetensors, unique_keys

Config = TypeVar("Config", bound=msgspec.Struct)
Json = TypeVar("Json")
# A number of config.json that says how many there are of something.
Size = Annotated[int, msgspec.Meta(ge=1)]

INDEX = "model.safetensors.index.json"
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

    # With less room than this, no token of the text is left between the special ones.
    max_seq_length: Annotated[int, msgspec.Meta(ge=3)] | None = None


class _Settings(msgspec.Struct, frozen=True):
    """config_sentence_transformers.json; `matryoshka_dims` is our addition."""

    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None
    matryoshka_dims: tuple[int, ...] = ()


class _Index(msgspec.Struct, frozen=True):
    """model.safetensors.index.json: tensor name to shard."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class SentenceTransformersConfig:
    """What the files of sentence-transformers say; None or empty where they are missing."""

    pooling: Pooling | None
    max_tokens: int | None
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    truncate_dims: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder; no tensor is in memory."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    weight_files: tuple[str, ...]

    @property
    def model_type(self) -> str:
        """`model_type` of config.json, which names the family."""
        return str(self.config.get("model_type"))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint.

    Raises:
        CheckpointError: the folder is no checkpoint, or a file is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; pass the folder that a model was downloaded to")
    config = read_json(folder / "config.json", dict[str, Any])
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{folder}: tokenizer.json is missing; save one with transformers: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    files = _weight_files(folder)
    tensors = _read_tensors(folder, files)
    _check_index(folder, tensors)
    return Checkpoint(folder, config, tensors, files)


def check_is_float(tensor: StoredTensor) -> None:
    """Refuse quantized weights: their codes are not their values.

    Raises:
        CheckpointError: the tensor is not stored as floating point numbers.
    """
    if tensor.dtype not in FLOATS:
        raise CheckpointError(
            f"{tensor.path}: {tensor.name} is stored as {tensor.dtype}; known: {', '.join(sorted(FLOATS))}; "
            "use the checkpoint that was not quantized"
        )


def parse_config(checkpoint: Checkpoint, kind: type[Config]) -> Config:
    """The part of config.json that a family declares.

    Raises:
        CheckpointError: a value is missing, of another type, or none of those that the family can follow.
    """
    path = checkpoint.folder / "config.json"
    if checkpoint.config.get("is_decoder"):
        raise CheckpointError(f"{path}: is_decoder is set; this family exports encoders")
    try:
        return msgspec.convert(with_rope_scaling(checkpoint.config), kind)
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause


def with_rope_scaling(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with `rope_theta` and `rope_scaling`, which transformers 5 writes into `rope_parameters`."""
    found = config.get("rope_parameters")
    if not isinstance(found, dict):
        return config
    scaling = {name: value for name, value in found.items() if name != "rope_theta"}
    plain = all(name in ("rope_type", "type") and value == "default" for name, value in scaling.items())
    theta = {"rope_theta": found["rope_theta"]} if "rope_theta" in found else {}
    return {**config, **theta, "rope_scaling": None if plain else scaling}


def read_sentence_transformers(folder: Path, override: Pooling | None = None) -> SentenceTransformersConfig:
    """Read modules.json, the Pooling module, sentence_bert_config.json and config_sentence_transformers.json.

    Args:
        folder: of a checkpoint or an adapter.
        override: pooling that takes the place of what the Pooling module says.

    Raises:
        CheckpointError: a file is damaged, or asks for a step that the graphs do not have.
    """
    transformer, pooling = folder, None
    modules = folder / "modules.json"
    for module in read_json(modules, list[_Module]) if modules.is_file() else []:
        kind = module.type.rsplit(".", 1)[-1]
        if kind not in KNOWN_MODULES:
            raise CheckpointError(f"{modules}: {unknown('module', kind, KNOWN_MODULES)}")
        if kind == "Transformer":
            transformer = folder / module.path
        if kind == "Pooling":
            pooling = _pooling(folder / module.path / "config.json", override)
    limits, settings = transformer / "sentence_bert_config.json", folder / "config_sentence_transformers.json"
    stated = read_json(settings, _Settings) if settings.is_file() else _Settings()
    return SentenceTransformersConfig(
        pooling=pooling,
        max_tokens=read_json(limits, _Limits).max_seq_length if limits.is_file() else None,
        prompts={name: text for name, text in stated.prompts.items() if text is not None},
        default_prompt_name=stated.default_prompt_name,
        truncate_dims=stated.matryoshka_dims,
    )


def read_json(path: Path, kind: type[Json]) -> Json:
    """Content of a JSON file, of a given type.

    Raises:
        CheckpointError: the file is missing, unreadable, not valid JSON, or of another type.
    """
    try:
        value = json.loads(path.read_text("utf-8"), object_pairs_hook=unique_keys)
        return msgspec.convert(value, kind)
    except FileNotFoundError as cause:
        raise CheckpointError(f"{path}: missing; is {path.parent} the folder of a model?") from cause
    except OSError as cause:
        raise CheckpointError(f"{path}: cannot be read: {cause.strerror}") from cause
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path}: not valid JSON: {cause}") from cause


def _weight_files(folder: Path) -> tuple[str, ...]:
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX, _Index).weight_map.values()))
        for name in names:
            if Path(name).name != name or name in ("", ".."):
                raise CheckpointError(f"{folder / INDEX}: {name!r} is not a file name")
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder / name}: this shard is missing; download the model again")
        return tuple(names)
    if (folder / "model.safetensors").is_file():
        return ("model.safetensors",)
    raise CheckpointError(
        f"{folder}: no model.safetensors or {INDEX}; other formats are not read "
        "(pickled weights run code when they are loaded)"
    )


def _read_tensors(folder: Path, files: Sequence[str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in open_safetensors(folder / file, CheckpointError).tensors.items():
            if name in tensors:
                raise CheckpointError(
                    f"{tensor.path}: tensor {name!r} is also in {tensors[name].path.name}; which of them counts?"
                )
            tensors[name] = tensor
    return tensors


def _check_index(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    if not (folder / INDEX).is_file():
        return
    for name, file in read_json(folder / INDEX, _Index).weight_map.items():
        if name not in tensors or tensors[name].path != folder / file:
            raise CheckpointError(f"{folder / file}: the index promises tensor {name!r}, the shard does not hold it")


def _pooling(path: Path, override: Pooling | None) -> Pooling:
    config = read_json(path, dict[str, Any])
    if config.get("include_prompt") is False:
        raise CheckpointError(f"{path}: include_prompt is false; pooling without the prompt is not built yet")
    if override is not None:
        return override
    # Newer files say {"pooling_mode": "mean"}, older ones one flag per mode.
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        modes = {flag.split("_")[2]: name for flag, name in POOLING_FLAGS.items()}
        if mode not in modes:
            raise CheckpointError(f"{path}: {unknown('pooling_mode', mode, modes)}")
        return modes[mode]
    chosen = [name for flag, name in POOLING_FLAGS.items() if config.get(flag)]
    others = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(others) != len(chosen):
        raise CheckpointError(f"{path}: asks for {', '.join(others)}; known: {', '.join(POOLING_FLAGS)}")
    if len(chosen) != 1:
        raise CheckpointError(f"{path}: asks for {len(chosen)} ways of pooling, one is possible; pass --pooling")
    return chosen[0]
