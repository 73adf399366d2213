"""Tokenizer of a folder: tokenizer.json with the settings of the files next to it, as transformers reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.added_tokens import AddedTokens, token_content
from embedpack_export.sources.bert_normalizer import BERT_CLASSES
from embedpack_export.sources.checkpoint import Checkpoint, read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import check_keys, shown
from embedpack_export.sources.tokenizer_class import FamilyTokenizer, as_class_reads, tokenizer_class
from embedpack_export.sources.tokenizer_conversion import VOCABULARIES, conversion
from embedpack_export.sources.tokenizer_ends import check_ends, load_tokenizer
from embedpack_export.sources.tokenizer_keys import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, TOKENIZER_JSON

Json = Mapping[str, Any]

CONFIG = "tokenizer_config.json"
# Files of a tokenizer; any of them makes an adapter's folder one with a tokenizer of its own.
TOKENIZER_FILES = ("tokenizer.json", CONFIG, "special_tokens_map.json", "added_tokens.json", *VOCABULARIES)
# model_max_length of a tokenizer without a limit is 1e30.
MAX_LENGTH = 1_048_576


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer of a folder."""

    path: Path  # tokenizer.json
    document: Json  # its content, with the settings of the other files
    max_tokens: int | None  # model_max_length; None: no limit
    pad_token_id: int | None
    special: Mapping[str, str]  # characters of the special tokens that the files name, by key, e.g. "mask_token"


Token = str | dict[str, Any] | None


class _Types(msgspec.Struct, frozen=True):
    """Types of the keys of tokenizer_config.json and special_tokens_map.json that are followed."""

    additional_special_tokens: list[Token] | dict[str, Token] | None = None
    extra_special_tokens: list[Token] | dict[str, Token] | None = None
    model_specific_special_tokens: dict[str, Token] | None = None
    added_tokens_decoder: dict[Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")], dict[str, Any]] | None = None
    pad_token: Token = None
    cls_token: Token = None
    sep_token: Token = None


@dataclass(frozen=True)
class _Files:
    """Contents of the files next to tokenizer.json; empty if a file is missing."""

    path: Path  # tokenizer_config.json
    config: Json
    special_tokens: Json
    added_path: Path  # added_tokens.json
    added_tokens: Mapping[str, int]


def read_tokenizer(
    folder: Path, checkpoint: Checkpoint, family: FamilyTokenizer, base: Path | None = None
) -> TokenizerFiles:
    """Read the tokenizer of a checkpoint or an adapter.

    `base` is the folder of the checkpoint of an adapter, which has tokenizer.json if the adapter has none.

    Raises:
        CheckpointError: a file is damaged, a key is unknown, or two files contradict each other.
    """
    folders = [folder] if base is None else [folder, base]
    path = _first(folders, "tokenizer.json")
    _check_vocabularies(folders, path)
    files = _read_files(folders)
    document: Json = read_json(path, dict[str, Any])
    check_keys(path, document, TOKENIZER_JSON)
    load_tokenizer(document, path)
    _check_dropout(path, document)
    kind = tokenizer_class(files.path, files.config, checkpoint, family)
    document = as_class_reads(document, kind, files.config, files.path)
    added = _with_added_tokens(AddedTokens.read(path, document), files)
    document = {**document, "added_tokens": added.entries, "truncation": _truncation(document, files)}
    check_ends(document, files.config, files.path, of_bert=kind in BERT_CLASSES)
    return TokenizerFiles(
        path=path,
        document=document,
        max_tokens=_max_tokens(files),
        pad_token_id=_pad_token_id(document, added, files),
        special=_special(files),
    )


def declared_tokens(config: Json) -> Iterator[str]:
    """Special tokens that a tokenizer_config.json or special_tokens_map.json names."""
    for key, value in config.items():
        if key in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
            yield from map(token_content, value.values() if isinstance(value, dict) else value or ())
        elif key.endswith("_token") and isinstance(value, str | dict):
            yield token_content(value)


def _first(folders: Sequence[Path], name: str) -> Path:
    """File of the first folder that has it, else of the last one."""
    return next((folder / name for folder in folders if exists(folder / name)), folders[-1] / name)


def _read_files(folders: Sequence[Path]) -> _Files:
    path = _first(folders, CONFIG)
    config = read_json(path, dict[str, Any]) if exists(path) else {}
    _check_types(path, config)
    check_keys(path, config, TOKENIZER_CONFIG)
    map_path, added_path = _first(folders, "special_tokens_map.json"), _first(folders, "added_tokens.json")
    special_tokens = read_json(map_path, dict[str, Any]) if exists(map_path) else {}
    _check_types(map_path, special_tokens)
    check_keys(map_path, special_tokens, SPECIAL_TOKENS_MAP)
    added_tokens = read_json(added_path, dict[str, int]) if exists(added_path) else {}
    return _Files(path, config, special_tokens, added_path, added_tokens)


def _check_types(path: Path, content: Json) -> None:
    try:
        msgspec.convert(content, _Types)
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause


def _check_vocabularies(folders: Sequence[Path], tokenizer: Path) -> None:
    """Refuse an adapter whose tokenizer is not in tokenizer.json, unless it is that of the checkpoint."""
    folder, base = folders[0], folders[-1]
    for name in () if tokenizer.parent == folder else VOCABULARIES:
        if exists(folder / name) and not _same_file(folder / name, base / name):
            raise CheckpointError(
                f"{folder}: {name} is another tokenizer than the checkpoint's, without a tokenizer.json; make one: "
                f"{conversion(folder, name)}"
            )


def _same_file(path: Path, other: Path) -> bool:
    return exists(other) and path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()


def _check_dropout(path: Path, document: Json) -> None:
    dropout = document["model"].get("dropout")
    if dropout:
        raise CheckpointError(f"{path}: model.dropout is {shown(dropout)}, which makes ids random; set it to null")


def _with_added_tokens(added: AddedTokens, files: _Files) -> AddedTokens:
    decoder = files.config.get("added_tokens_decoder")
    named = dict(files.config)
    if decoder is not None:
        tokens = {int(number): token for number, token in decoder.items()}
        added = added.with_numbered(tokens, files.path)
    else:
        named |= files.special_tokens
        special = set(declared_tokens(named))
        tokens = {
            number: {"content": content, "special": content in special, "normalized": content not in special}
            for content, number in files.added_tokens.items()
        }
        added = added.with_numbered(tokens, files.added_path, keep=True)
    return added.with_special(declared_tokens(named))


def _truncation(document: Json, files: _Files) -> Json | None:
    side = files.config.get("truncation_side")
    if side not in ("left", "right", None):
        raise CheckpointError(f"{files.path}: truncation_side is {shown(side)}; supported: left, right")
    direction = (document.get("truncation") or {}).get("direction", "Right") if side is None else side.capitalize()
    return {"direction": direction, "max_length": MAX_LENGTH, "strategy": "LongestFirst", "stride": 0}


def _max_tokens(files: _Files) -> int | None:
    value = files.config.get("model_max_length", files.config.get("max_len"))
    if value is None or (isinstance(value, int | float) and value > MAX_LENGTH):
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 3:
        raise CheckpointError(f"{files.path}: model_max_length is {shown(value)}; it is a number of tokens, 3 or more")
    return value


def _special(files: _Files) -> dict[str, str]:
    named = {**files.special_tokens, **files.config}
    tokens = {key: value for key, value in named.items() if key.endswith("_token") and isinstance(value, str | dict)}
    return {key: token_content(value) for key, value in tokens.items()}


def _pad_token_id(document: Json, added: AddedTokens, files: _Files) -> int | None:
    token = files.config.get("pad_token", files.special_tokens.get("pad_token"))
    if isinstance(token, str | dict):
        return added.number(token_content(token))
    padding = document.get("padding")
    return padding.get("pad_id") if isinstance(padding, dict) else None
