"""Reader of Hugging Face folders without torch: config.json, safetensors (one file or shards), tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from embedpack.errors import CapacityError, CheckpointError
from embedpack.storage.safetensors import FLOATS, StoredTensor, open_safetensors, unique_keys
from embedpack_export.sources.files import MAX_JSON_BYTES, check_file, exists, read_file
from embedpack_export.sources.key_rules import KeyTable, check_keys
from embedpack_export.sources.rope_config import with_rope_scaling
from embedpack_export.sources.tokenizer_conversion import missing_tokenizer

Config = TypeVar("Config", bound=msgspec.Struct)
Json = TypeVar("Json")
# A count in config.json.
Size = Annotated[int, msgspec.Meta(ge=1)]

# Names of the numbers of layers, also in text_config and vision_config.
LAYER_COUNTS = ("num_hidden_layers", "depth")
# So few cost nothing, and the first missing tensor is named.
MAX_UNCHECKED_LAYERS = 1000
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class _Index(msgspec.Struct, frozen=True):
    """model.safetensors.index.json: tensor name to shard."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder; no tensor is in memory."""

    folder: Path
    config: Mapping[str, Any]  # content of config.json
    tensors: Mapping[str, StoredTensor]
    weight_files: tuple[str, ...]  # names of the safetensors files


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint.

    Raises:
        CheckpointError: the folder is no checkpoint, or a file of it is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; pass the folder that a model was downloaded to")
    config = read_json(folder / "config.json", dict[str, Any])
    if not exists(folder / "tokenizer.json"):
        raise missing_tokenizer(folder)
    check_file(folder / "tokenizer.json", folder, MAX_JSON_BYTES)
    files = _weight_files(folder)
    tensors = _read_tensors(folder, files)
    _check_index(folder, files, tensors)
    tensors = _with_tied_embedding(config, tensors)
    _check_layers(folder / "config.json", config, len(tensors))
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


def parse_config(checkpoint: Checkpoint, kind: type[Config], keys: KeyTable) -> Config:
    """Convert config.json to the struct of a family.

    Raises:
        CheckpointError: a key is unknown, or a value is missing, of another type, or not supported by the family.
    """
    return parse_object(checkpoint, checkpoint.config, kind, keys)


def parse_object(
    checkpoint: Checkpoint, content: Mapping[str, Any], kind: type[Config], keys: KeyTable, within: str = ""
) -> Config:
    """Convert an object of config.json, by default the whole, to a struct; errors as `parse_config`."""
    path = checkpoint.folder / "config.json"
    check_keys(path, content, keys, within)
    try:
        return msgspec.convert(with_rope_scaling(path, content), kind)
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {f'{within}: ' if within else ''}{cause}") from cause


def first_token_id(value: int | tuple[int, ...] | None) -> int | None:
    """The first of the token ids in config.json, where a list is possible; None without one."""
    return next(iter(value), None) if isinstance(value, tuple) else value


def read_json(path: Path, kind: type[Json], folder: Path | None = None) -> Json:
    """Read a JSON file as a value of type `kind`; it must lie in `folder`, by default its own.

    Raises:
        CheckpointError: the file is missing, unreadable, not valid JSON, or of another type.
    """
    try:
        if not exists(path):
            raise CheckpointError(f"{path}: missing; is {path.parent} the folder of a model?")
        content = read_file(path, folder or path.parent, MAX_JSON_BYTES)
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique_keys)
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause
    except MemoryError as cause:
        raise CapacityError(f"{path}: does not fit the memory; free some") from cause
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path}: not valid JSON: {cause}") from cause


def _weight_files(folder: Path) -> tuple[str, ...]:
    """Files of the weights. transformers prefers model.safetensors, but two models in one folder are a mistake."""
    shards = _shards(folder) if exists(folder / INDEX) else ()
    if exists(folder / SINGLE):
        others = [name for name in shards if name != SINGLE and exists(folder / name)]
        if others:
            raise CheckpointError(
                f"{folder}: has the weights of two models, {SINGLE} and those of {INDEX} ({others[0]}, ...); "
                "remove the older ones"
            )
        check_file(folder / SINGLE, folder)
        return (SINGLE,)
    for name in shards:
        if not exists(folder / name):
            raise CheckpointError(f"{folder / name}: this shard is missing; download the model again")
        check_file(folder / name, folder)
    if exists(folder / INDEX):
        return shards
    raise CheckpointError(
        f"{folder}: no model.safetensors or {INDEX}; other formats are not read "
        "(pickled weights run code when they are loaded)"
    )


def _shards(folder: Path) -> tuple[str, ...]:
    names = sorted(set(read_json(folder / INDEX, _Index).weight_map.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".."):
            raise CheckpointError(f"{folder / INDEX}: {name!r} is not a file name")
    return tuple(names)


def _with_tied_embedding(config: Mapping[str, Any], tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors, with lm_head.weight as the embedding table if the two are tied and only the head is stored."""
    heads = [name for name in tensors if name.endswith("lm_head.weight")]
    missing = not any(name.endswith("embed_tokens.weight") for name in tensors)
    nested = config.get("text_config")
    tied = any(part.get("tie_word_embeddings") is True for part in (config, nested) if isinstance(part, dict))
    if not tied or len(heads) != 1 or not missing:
        return tensors
    (head,) = heads
    prefix = "model." if any(name.startswith("model.") for name in tensors) else ""
    table = f"{prefix}embed_tokens.weight"
    return {name: tensor for name, tensor in tensors.items() if name != head} | {table: tensors[head]}


def _read_tensors(folder: Path, files: Sequence[str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in open_safetensors(folder / file, CheckpointError).tensors.items():
            if name in tensors:
                raise CheckpointError(
                    f"{tensor.path}: tensor {name!r} is also in {tensors[name].path.name}; remove one of the two"
                )
            tensors[name] = tensor
    return tensors


def _check_index(folder: Path, files: Sequence[str], tensors: Mapping[str, StoredTensor]) -> None:
    if files == (SINGLE,) or not exists(folder / INDEX):
        return
    for name, file in read_json(folder / INDEX, _Index).weight_map.items():
        if name not in tensors or tensors[name].path != folder / file:
            raise CheckpointError(f"{folder / file}: tensor {name!r} is in the index, but not in this shard")


def _check_layers(path: Path, config: Mapping[str, Any], tensors: int) -> None:
    """Refuse numbers of layers beyond the tensors of the file: all that follows is proportional to them."""
    for key, value in config.items():
        for name, count in value.items() if isinstance(value, dict) else [(key, value)]:
            if name in LAYER_COUNTS and isinstance(count, int) and count > max(tensors, MAX_UNCHECKED_LAYERS):
                raise CheckpointError(
                    f"{path}: {name} is {count}, the checkpoint has {tensors} tensors; are both of one model?"
                )
