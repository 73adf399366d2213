"""Normalizer of a tokenizer.json with the settings of BertTokenizer and of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError
from embedpack_export.sources.key_rules import shown

Json = Mapping[str, Any]

BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "MPNetTokenizer")


@dataclass(frozen=True)
class _Setting:
    """A key of tokenizer_config.json and the field of BertNormalizer that it sets."""

    key: str
    field: str
    default: bool | None


SETTINGS = (
    _Setting("do_lower_case", "lowercase", True),
    _Setting("strip_accents", "strip_accents", None),
    _Setting("tokenize_chinese_chars", "handle_chinese_chars", True),
)


def with_bert_settings(document: Json, config: Json, path: Path) -> Json:
    """The content of a tokenizer.json with the settings of a BertTokenizer's tokenizer_config.json, `config` at `path`.

    Raises:
        CheckpointError: a setting is missing there, and tokenizer.json differs from the default of BertTokenizer; or
            tokenizer.json has another normalizer, which lowers letters otherwise.
    """
    normalizer = document.get("normalizer")
    if document["model"].get("type", "WordPiece") != "WordPiece":
        return document
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        _check_other(normalizer, config, path)
        return document
    wanted = {setting.field: config.get(setting.key, setting.default) for setting in SETTINGS}
    changed = {**normalizer, **wanted}
    for setting in SETTINGS:
        found = normalizer.get(setting.field, setting.default)
        decides = setting.key not in config and found != setting.default
        if decides and found != _effective(changed, setting):
            raise CheckpointError(
                f"{path}: {setting.key} is missing, for which BertTokenizer takes {shown(setting.default)}; "
                f"tokenizer.json has {setting.field} {shown(found)}. Add {setting.key} with the right value"
            )
    return {**document, "normalizer": changed}


def _effective(normalizer: Json, setting: _Setting) -> bool | None:
    """Value of a field; without one accents are stripped together with lower case."""
    value: bool | None = normalizer.get(setting.field, setting.default)
    return normalizer.get("lowercase", True) if value is None else value


def lower_cased(document: Json) -> Json:
    """The content of a tokenizer.json with lower case before all else, as sentence-transformers' do_lower_case does."""
    parts = _parts(document.get("normalizer"))
    if any(part.get("type") == "Lowercase" for part in parts):
        return document
    return {**document, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *parts]}}


def _check_other(normalizer: Any, config: Json, path: Path) -> None:
    wanted = config.get("do_lower_case")
    found = any(part.get("type") == "Lowercase" or part.get("lowercase") for part in _parts(normalizer))
    if wanted is not None and bool(wanted) != found:
        raise CheckpointError(
            f"{path}: do_lower_case is {shown(wanted)}, tokenizer.json does {'' if found else 'not '}lower letters; "
            "make the two agree"
        )


def _parts(normalizer: Any) -> list[Json]:
    if not isinstance(normalizer, dict):
        return []
    return list(normalizer["normalizers"]) if normalizer.get("type") == "Sequence" else [normalizer]
