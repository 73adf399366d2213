"""Conversion of texts to token ids: one tokenizer, length and padding token from all files of a model source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError, PackError
from embedpack.inputs.prompt_rules import PromptOrPrefix, as_prompt
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack_export.families.model import Model
from embedpack_export.planning.multi_vector_choice import find_multi_vectors
from embedpack_export.planning.prompt_options import PROMPTS_OF_FILES, PromptOptions
from embedpack_export.sources.added_tokens import AddedTokens
from embedpack_export.sources.bert_normalizer import lower_cased
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.files import exists
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig
from embedpack_export.sources.text_protection import protected
from embedpack_export.sources.tokenizer_files import TOKENIZER_FILES, TokenizerFiles, read_tokenizer

Configs = Mapping[str, SentenceTransformersConfig]
# Mask tokens of the classes of tokenizers whose files may name none.
MASK_TOKENS = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class TextOptions:
    """Choices of the caller; None or empty: those of the files."""

    max_tokens: int | None = None
    text_tokens: tuple[str, ...] = ()  # special tokens that are parsed in texts
    prompts: PromptOptions = PROMPTS_OF_FILES


@dataclass(frozen=True)
class TokenNames:
    """Ids of tokens by their names."""

    added: AddedTokens
    special: Mapping[str, str]  # special tokens that the files name, by key
    model: Mapping[str, Any]  # `model` of tokenizer.json

    @property
    def fill(self) -> int | None:
        """Token of query expansion, as in PyLate: the mask token, else the token at the end of texts."""
        mask = self.special.get("mask_token") or next(filter(self._is_added, MASK_TOKENS), None)
        return next((self.added.number(token) for token in (mask, self.special.get("eos_token")) if token), None)

    def skipped(self, word: str, *, with_unknown: bool) -> int | None:
        """Id of a word; of one that is no token that of the unknown token if `with_unknown`, else None."""
        number = self.added.number(word)
        return self.unknown if number is None and with_unknown else number

    @property
    def unknown(self) -> int | None:
        """Token of what is no part of the vocabulary."""
        unknown = self.special.get("unk_token") or self.model.get("unk_token")
        return self.model.get("unk_id") if unknown is None else self.added.number(unknown)

    def _is_added(self, token: str) -> bool:
        return any(entry["content"] == token for entry in self.added.entries)


@dataclass(frozen=True)
class TextInputs:
    """Conversion of texts to token ids."""

    tokenizer: Path  # tokenizer.json that the pack's is made of
    tokenizer_json: bytes  # content of the pack's tokenizer.json
    max_tokens: int  # maximum length of an input, special tokens included
    pad_token_id: int  # id of the padding token, a row of the embedding table
    digest: str  # digest of all that turns a text into tokens, but for the length
    tokens: TokenNames


@dataclass(frozen=True)
class _FolderInputs:
    """Inputs of the checkpoint or an adapter by the files of its folder."""

    folder: Path
    files: TokenizerFiles
    document: Mapping[str, Any]  # content of tokenizer.json, in lower case if the folder asks for it
    max_tokens: int | None  # length of the folder; None: no file has one


def resolve_text_inputs(
    checkpoint: Checkpoint, model: Model, config: SentenceTransformersConfig, by_task: Configs, options: TextOptions
) -> TextInputs:
    """Resolve the files of a checkpoint, described by `config`, and of its adapters to one conversion.

    Markers of multi-vectors are special tokens, so that no text has one.

    Raises:
        CheckpointError: a file is damaged or contradicts another, or the adapters need several tokenizers or lengths.
    """
    files = read_tokenizer(config.transformer, checkpoint, model.tokenizer)
    document = lower_cased(files.document) if config.lower_case else files.document
    base = _FolderInputs(config.folder, files, document, config.max_tokens or _of_tokenizer(files, model))
    adapters = [_of_adapter(base, adapter, checkpoint, model) for adapter in by_task.values()]
    chosen = _one_tokenizer(adapters or [base])
    length = _max_tokens(adapters or [base], model, options)
    pad = _pad_token_id(model, chosen.files.pad_token_id)
    tokens = AddedTokens.read(chosen.files.path, chosen.document).as_texts(options.text_tokens)
    found = find_multi_vectors(config, by_task)
    known = [entry["content"] for entry in tokens.entries]
    tokens = tokens.with_special(() if found is None else found.markers(known))
    prompt = model.list_prompt if config.logits is None else model.pair_prompt
    if prompt is not None:
        # So that no text has a mark of the prompt; one that is missing is found later.
        tokens = tokens.with_special(mark for mark in prompt.marks if mark in known)
    document = protected({**chosen.document, "added_tokens": tokens.entries}, chosen.files.path)
    content = _pack_tokenizer(document, length, pad)
    _check_tokenizer(chosen.files.path, model, content)
    names = TokenNames(tokens, chosen.files.special, chosen.document["model"])
    return TextInputs(chosen.files.path, content, length, pad, _digest(document), names)


def _of_adapter(
    base: _FolderInputs, config: SentenceTransformersConfig, checkpoint: Checkpoint, model: Model
) -> _FolderInputs:
    """Inputs of an adapter: its own files, and those of the checkpoint where it has none."""
    folder = config.transformer
    if not any(exists(folder / name) for name in TOKENIZER_FILES):
        return replace(base, folder=folder, max_tokens=config.max_tokens or base.max_tokens)
    files = read_tokenizer(folder, checkpoint, model.tokenizer, base.files.path.parent)
    lower = config.lower_case or base.document is not base.files.document
    # A copy of the checkpoint's tokenizer has its model_max_length, which sentence_bert_config.json may lower; and a
    # tokenizer without a limit does not lift that of the checkpoint.
    own = base.max_tokens if files.max_tokens in (None, base.files.max_tokens) else _of_tokenizer(files, model)
    document = lower_cased(files.document) if lower else files.document
    return _FolderInputs(folder, files, document, config.max_tokens or own)


def _of_tokenizer(files: TokenizerFiles, model: Model) -> int | None:
    """Length of a tokenizer, which positions limit, as in sentence-transformers; max_seq_length may exceed them."""
    return None if files.max_tokens is None else min(files.max_tokens, model.max_tokens)


def _one_tokenizer(folders: list[_FolderInputs]) -> _FolderInputs:
    first, *others = folders
    for other in others:
        if other.document != first.document:
            raise CheckpointError(
                f"{first.folder} and {other.folder} have different tokenizers, a pack has one; export the adapters to "
                "packs of their own"
            )
    return first


def _max_tokens(folders: list[_FolderInputs], model: Model, options: TextOptions) -> int:
    if options.max_tokens is None:
        lengths = {folder.folder: min(folder.max_tokens or model.max_tokens, model.longest) for folder in folders}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{folder} has {length}" for folder, length in lengths.items())
            raise CheckpointError(
                f"the adapters have different maximum lengths, a pack has one: {found}; pass --max-length"
            )
        return next(iter(lengths.values()))
    if not 3 <= options.max_tokens <= model.longest:
        raise CheckpointError(
            f"--max-length {options.max_tokens} is not possible for this model; pass 3 to {model.longest} tokens"
        )
    return options.max_tokens


def _pad_token_id(model: Model, of_tokenizer: int | None) -> int:
    """The first row of the embedding table among the padding tokens of config.json and the tokenizer, else the end."""
    candidates = (model.pad_token_id, of_tokenizer, model.eos_token_id)
    return next((token for token in candidates if token is not None and 0 <= token < model.vocabulary), 0)


def _pack_tokenizer(document: Mapping[str, Any], length: int, pad: int) -> bytes:
    """Content of the pack's tokenizer.json, which truncates and pads as the pack does."""
    added = {entry["id"]: entry["content"] for entry in document["added_tokens"]}
    padding = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": pad,
        "pad_type_id": 0,
        "pad_token": added.get(pad, "[PAD]"),
    }
    truncation = {**document["truncation"], "max_length": length}
    content = {"version": document.get("version"), "truncation": truncation, "padding": padding}
    others = {key: value for key, value in document.items() if key not in content}
    return json.dumps(content | others, ensure_ascii=False, separators=(",", ":")).encode()


def _digest(document: Mapping[str, Any]) -> str:
    parts = {
        key: document.get(key) for key in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
    }
    content = json.dumps([parts, document["truncation"]["direction"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _check_tokenizer(path: Path, model: Model, tokenizer_json: bytes) -> None:
    try:
        tokenizer = TextTokenizer(tokenizer_json, model.longest)
    except PackError as cause:
        raise CheckpointError(f"{path.parent}: {cause}") from cause
    if tokenizer.largest_id >= model.vocabulary:
        raise CheckpointError(
            f"{path}: has ids up to {tokenizer.largest_id}, the embedding table only {model.vocabulary} rows; the "
            "tokenizer belongs to another model"
        )


def check_prompts(inputs: TextInputs, model: Model, prompts: Mapping[str, PromptOrPrefix]) -> None:
    """Refuse a prompt with a token beyond the embedding table, or with a limit that leaves no room for a text.

    Raises:
        CheckpointError: see above; the message has the prompt's name.
    """
    tokenizer = TextTokenizer(inputs.tokenizer_json, model.longest)
    for name, prompt_or_prefix in prompts.items():
        prompt = as_prompt(prompt_or_prefix)
        limit, special = prompt.max_tokens or inputs.max_tokens, tokenizer.special_tokens + (prompt.marker is not None)
        if limit <= special:
            raise CheckpointError(
                f"prompt {name!r}: has at most {limit} tokens, and {special} special ones are added to a text; restore "
                "the files of the model"
            )
        (tokens,) = tokenizer.encode([""], prompt.prefix)
        added = [prompt.marker or 0, 0 if prompt.fill is None else prompt.fill.token]
        largest = max([*tokens.ids.tolist(), *added, *prompt.skip], default=0)
        if largest >= model.vocabulary:
            raise CheckpointError(
                f"prompt {name!r}: has the token {largest}, the embedding table {model.vocabulary} rows; the tokenizer "
                "belongs to another model"
            )
