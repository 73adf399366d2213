"""Settings of a model for multi-vectors from the files of PyLate or of sentence-transformers' MultiVectorEncoder.

PyLate (1.6.0, models/colbert.py) has its settings in config_sentence_transformers.json, and puts markers into the token
ids; sentence-transformers (6, multi_vector_encoder/) has them in the configurations of its modules, and markers as
special tokens in its prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import check_keys
from embedpack_export.sources.layer_modules import LayerModule, read_layer
from embedpack_export.sources.modules_json import Module
from embedpack_export.sources.multi_vector_config import DOCUMENT, QUERY, Expansion, MultiVectorConfig, SideSettings
from embedpack_export.sources.multi_vector_keys import MASK, MULTI_SETTINGS, TOKEN_DENSE, TOKEN_NORMALIZE

SETTINGS_FILE = "config_sentence_transformers.json"
PYLATE, SENTENCE_TRANSFORMERS = "ColBERT", "MultiVectorEncoder"
# PyLate's default.
QUERY_LENGTH = 32
Tokens = Annotated[int, msgspec.Meta(ge=4, le=1_048_576)]


class _Settings(msgspec.Struct, frozen=True):
    """config_sentence_transformers.json."""

    model_type: Literal["ColBERT", "MultiVectorEncoder"] | None = None
    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    query_length: Tokens | None = None
    document_length: Tokens | None = None
    do_query_expansion: bool | None = None
    attend_to_expansion_tokens: bool | None = None
    skiplist_words: tuple[str, ...] | None = None

    def text(self, side: str) -> str:
        """Prompt text of a side."""
        return self.prompts.get(side) or ""

    @property
    def other_prompts(self) -> dict[str, str]:
        """Prompts of neither side."""
        return {name: text for name, text in self.prompts.items() if text is not None and name not in (QUERY, DOCUMENT)}


class _QueryExpansion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    strategy: Literal["fixed", "min"]
    length: Tokens
    attend: bool = False
    token: str | None = None


class _Limits(msgspec.Struct, frozen=True):
    """Configuration of the Transformer module."""

    query_length: Tokens | None = None
    document_length: Tokens | None = None
    query_expansion: _QueryExpansion | None = None


class _Mask(msgspec.Struct, frozen=True):
    skiplist_words: tuple[str, ...] | None = None


def read_multi_vector_files(folder: Path, modules: Sequence[Module], limits: Path | None) -> MultiVectorConfig:
    """Read the settings of the model in a folder.

    `limits` is the configuration of its Transformer, if there is one, whose keys were checked.

    Raises:
        CheckpointError: a file is missing or damaged, a key is unknown, or a value is not supported.
    """
    path = folder / SETTINGS_FILE
    check_keys(path, read_json(path, dict[str, Any], folder), MULTI_SETTINGS)
    settings = read_json(path, _Settings, folder)
    layers = tuple(read_layer(folder, module, TOKEN_DENSE) for module in modules if module.kind == "Dense")
    if settings.model_type is None:
        raise CheckpointError(
            f"{path}: no model_type; that of a model for multi-vectors is {PYLATE} or {SENTENCE_TRANSFORMERS}: save it "
            "again with PyLate or sentence-transformers"
        )
    if settings.model_type == PYLATE:
        return _of_pylate(path, settings, layers)
    transformer = _Limits() if limits is None else read_json(limits, _Limits, folder)
    return MultiVectorConfig(
        path=path,
        sides=_sides_of_prompts(settings, transformer),
        expansion=_expansion(transformer.query_expansion),
        skipped=_skipped(folder, modules),
        skips_unknown=False,
        needs_document_length=False,
        prompts=settings.other_prompts,
        default_prompt_name=settings.default_prompt_name,
        mean_score=settings.similarity_fn_name == "meanmaxsim",
        layers=layers,
    )


def _of_pylate(path: Path, settings: _Settings, layers: tuple[LayerModule, ...]) -> MultiVectorConfig:
    for name in ("query_prefix", "document_prefix", "skiplist_words"):
        if getattr(settings, name) is None:
            raise CheckpointError(f"{path}: {name} is missing; save the model again with PyLate")
    length = settings.query_length or QUERY_LENGTH
    expansion = Expansion(length, settings.attend_to_expansion_tokens is True, None)
    return MultiVectorConfig(
        path=path,
        sides={
            QUERY: SideSettings(settings.query_prefix or None, settings.text(QUERY), length),
            DOCUMENT: SideSettings(settings.document_prefix or None, settings.text(DOCUMENT), settings.document_length),
        },
        expansion=None if settings.do_query_expansion is False else expansion,
        skipped=settings.skiplist_words or (),
        skips_unknown=True,
        needs_document_length=settings.document_length is None,
        prompts=settings.other_prompts,
        default_prompt_name=settings.default_prompt_name,
        mean_score=False,
        layers=layers,
    )


def _sides_of_prompts(settings: _Settings, transformer: _Limits) -> dict[str, SideSettings]:
    """Sides whose markers, if they have any, are special tokens in prompts."""
    expansion = transformer.query_expansion
    fixed = expansion is not None and expansion.strategy == "fixed"
    query_length = expansion.length if expansion is not None and fixed else transformer.query_length
    return {
        QUERY: SideSettings(None, settings.text(QUERY), query_length),
        DOCUMENT: SideSettings(None, settings.text(DOCUMENT), transformer.document_length),
    }


def _expansion(found: _QueryExpansion | None) -> Expansion | None:
    return None if found is None else Expansion(found.length, found.attend, found.token)


def _skipped(folder: Path, modules: Sequence[Module]) -> tuple[str, ...]:
    """Words of the MultiVectorMask; CheckpointError if that module or Normalize is missing."""
    by_kind = {module.kind: folder / module.path / "config.json" for module in modules}
    for kind, remedy in (
        ("MultiVectorMask", "which chooses the vectors"),
        ("Normalize", "and vectors without length 1 are not supported"),
    ):
        if kind not in by_kind:
            raise CheckpointError(f"{folder / 'modules.json'}: has no {kind}, {remedy}; export a model with it")
    if exists(by_kind["Normalize"]):
        check_keys(by_kind["Normalize"], read_json(by_kind["Normalize"], dict[str, Any], folder), TOKEN_NORMALIZE)
    if not exists(by_kind["MultiVectorMask"]):
        return ()
    check_keys(by_kind["MultiVectorMask"], read_json(by_kind["MultiVectorMask"], dict[str, Any], folder), MASK)
    return read_json(by_kind["MultiVectorMask"], _Mask, folder).skiplist_words or ()
