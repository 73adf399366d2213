"""Tokenizer classes of transformers that do not read tokenizer.json as it is: BERT, XLM-RoBERTa, Llama."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError
from embedpack_export.sources.added_tokens import token_content
from embedpack_export.sources.bert_normalizer import BERT_CLASSES, with_bert_settings
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import shown

logger = logging.getLogger("embedpack")

Json = Mapping[str, Any]

# Classes with the words of XLM-RoBERTa.
XLM_ROBERTA_CLASSES = ("XLMRobertaTokenizer", "CamembertTokenizer")
LLAMA = "LlamaTokenizer"


@dataclass(frozen=True)
class FamilyTokenizer:
    """Class that AutoTokenizer takes for a family."""

    default: str = ""  # class where no file names one
    fixed: bool = False  # AutoTokenizer takes a class that reads tokenizer.json as it is, whatever the files name


NO_CLASS = FamilyTokenizer()


def tokenizer_class(path: Path, config: Json, checkpoint: Checkpoint, family: FamilyTokenizer) -> str:
    """Class that AutoTokenizer takes, without "Fast"; `config` is the tokenizer_config.json at `path`."""
    if family.fixed:
        return ""
    default = family.default if exists(path) else ""
    named = config.get("tokenizer_class") or checkpoint.config.get("tokenizer_class") or default
    return str(named).removesuffix("Fast")


def as_class_reads(document: Json, kind: str, config: Json, path: Path) -> Json:
    """The content of a tokenizer.json as a class reads it; `config` is the tokenizer_config.json at `path`.

    Raises:
        CheckpointError: the two contradict each other.
    """
    if kind not in (*BERT_CLASSES, *XLM_ROBERTA_CLASSES, LLAMA) or (kind == LLAMA and _is_byte_level(document)):
        return document
    _check_complete(document, kind, config, path)
    if kind in BERT_CLASSES:
        return with_bert_settings(document, config, path)
    if kind == LLAMA:
        return _with_spaces_of_llama(document, config)
    if document["model"].get("type") != "Unigram":
        return document
    _warn_of_dropped(document, kind, path)
    return _with_words_of_xlm_roberta(document, config)


def _check_complete(document: Json, kind: str, config: Json, path: Path) -> None:
    """Refuse an `added_tokens_decoder` without all added tokens: classes of transformers 5 read it alone."""
    decoder = config.get("added_tokens_decoder")
    named = set(map(token_content, decoder.values())) if isinstance(decoder, dict) else None
    contents = [entry["content"] for entry in document.get("added_tokens") or ()]
    lacking = [content for content in contents if named is not None and content not in named]
    if lacking:
        raise CheckpointError(
            f"{path}: added_tokens_decoder lacks {shown(lacking[0])} of tokenizer.json, which {kind} then reads "
            "as plain characters; save the tokenizer again"
        )


def _with_words_of_xlm_roberta(document: Json, config: Json) -> Json:
    """The content of a tokenizer.json with the words of transformers' XLMRobertaTokenizer: runs without white space.

    Files of older versions give a token to spaces at the end of a text; since version 5 the class does not read that.
    """
    precompiled = next((step for step in _normalizers(document) if step.get("type") == "Precompiled"), None)
    scheme = "always" if config.get("add_prefix_space", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}
    words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    return {**document, "normalizer": precompiled, "pre_tokenizer": words}


def _warn_of_dropped(document: Json, kind: str, path: Path) -> None:
    """Log the normalizers that a class of XLM-RoBERTa's words does not apply, but for those of spaces."""
    steps = [step for step in _normalizers(document) if step.get("content") != " "]
    dropped = [str(step.get("type")) for step in steps if step.get("type") not in ("Precompiled", None)]
    if dropped:
        logger.warning(
            "%s: transformers' %s does not apply the normalizers %s of tokenizer.json; texts are read without them, as "
            "sentence-transformers reads them",
            path.with_name("tokenizer.json"),
            kind,
            ", ".join(dropped),
        )


def _normalizers(document: Json) -> list[Json]:
    normalizer = document.get("normalizer") or {}
    return list(normalizer.get("normalizers", [normalizer]))


def _is_byte_level(document: Json) -> bool:
    """True for the tokenizers of Llama 3, which AutoTokenizer reads as they are under any class."""
    parts = [part for key in ("pre_tokenizer", "decoder") if (part := document.get(key)) is not None]
    parts += [step for part in parts for key in ("pretokenizers", "decoders") for step in part.get(key, ())]
    return any(part.get("type") == "ByteLevel" for part in parts)


def _with_spaces_of_llama(document: Json, config: Json) -> Json:
    """The content of a tokenizer.json with the spaces of LlamaTokenizer: one before a text without any."""
    scheme = "always" if config.get("legacy") else "first"
    if config.get("add_prefix_space") is False:
        scheme = "never"
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}
    model = {**document["model"], "unk_token": None, "fuse_unk": True, "byte_fallback": True}
    return {**document, "normalizer": None, "pre_tokenizer": metaspace, "model": model}
