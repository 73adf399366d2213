"""Settings of models for multi-vectors (ColBERT), whatever files they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedpack_export.sources.layer_modules import LayerModule

QUERY, DOCUMENT = "query", "document"


@dataclass(frozen=True)
class SideSettings:
    """Form of the texts of one side; tokens are named by their characters."""

    marker: str | None  # token behind the first one; None: there is none
    prefix: str  # text before each text
    max_tokens: int | None  # limit, special tokens and marker included; None: that of the model


@dataclass(frozen=True)
class Expansion:
    """Query expansion: shorter queries are filled up."""

    length: int  # tokens of a query, special tokens and marker included
    attended: bool  # whether other tokens attend to the added ones
    token: str | None  # the added token; None: the tokenizer's mask token, else its end token


@dataclass(frozen=True)
class MultiVectorConfig:
    """Settings of a model for multi-vectors.

    Attributes:
        path: file that they come from, for messages.
        sides: form of queries and documents, by QUERY and DOCUMENT.
        expansion: query expansion; None: there is none.
        skipped: words whose tokens are left out of the multi-vectors of documents.
        skips_unknown: a word that is no token stands for the unknown token, as in PyLate; else it is left out.
        needs_document_length: the limit of documents differs between the libraries of the model, if no file has it.
        prompts: other prompts, text by name.
        default_prompt_name: prompt of texts without a prompt name; None: that of documents.
        mean_score: MaxSim is divided by the number of query vectors.
        layers: layers behind the hidden states; empty: a tensor of the checkpoint is the only one.
    """

    path: Path
    sides: Mapping[str, SideSettings]
    expansion: Expansion | None
    skipped: tuple[str, ...]
    skips_unknown: bool
    needs_document_length: bool
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    mean_score: bool
    layers: tuple[LayerModule, ...]

    @property
    def max_tokens(self) -> int | None:
        """Limit of the longer side; None: that of the model."""
        limits = [side.max_tokens for side in self.sides.values()]
        known = [limit for limit in limits if limit is not None]
        return max(known) if len(known) == len(limits) else None

    def markers(self, tokens: Sequence[str]) -> list[str]:
        """Those of the tokens that mark a side, as markers or at the beginning of its prefix."""
        begins = [(side.marker, side.prefix) for side in self.sides.values()]
        return [
            token
            for token in tokens
            if token and any(token == marker or prefix.startswith(token) for marker, prefix in begins)
        ]
