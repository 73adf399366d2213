"""Rules of a prompt beside its prefix: limit, marker, fill, skipped tokens.

The rules of ColBERT models (Khattab and Zaharia 2020, arXiv 2004.12832, section 3.2), with the places of PyLate: the
marker is inserted behind the first token after the cut, and tokens are skipped by their ids alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from embedpack.errors import PackError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.inputs.tokens import Tokens
from embedpack.pack.input_recipes import Prompt

MARKER_PLACE = 1

# A prefix stands for a prompt without other rules.
PromptOrPrefix: TypeAlias = Prompt | str


@dataclass(frozen=True)
class PromptedTokens:
    """Tokens of a text under a prompt.

    Attributes:
        tokens: tokens with marker and fill, which are special.
        unattended: number of tokens at the end that no token attends to.
        skipped: tokens whose vectors are left out of the multi-vector, bool [length]; None: no token.
    """

    tokens: Tokens
    unattended: int
    skipped: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class PromptRules:
    """Tokenizer of texts under prompts."""

    tokenizer: TextTokenizer

    def limit(self, prompt: Prompt) -> int:
        """Maximum length of a text under a prompt, special tokens and marker included."""
        own = self.tokenizer.max_tokens
        return own if prompt.max_tokens is None else min(own, prompt.max_tokens)

    def shown_limit(self, prompt: Prompt) -> str:
        """The limit and its origin, for messages."""
        limit = self.limit(prompt)
        return f"{limit} tokens of the {'prompt' if limit < self.tokenizer.max_tokens else 'model'}"

    def encode(
        self, texts: Sequence[str], prompt: Prompt, numbers: Sequence[int] | None = None
    ) -> list[PromptedTokens]:
        """Tokenize texts under a prompt; arguments and errors as of `TextTokenizer.encode`."""
        limit = self.limit(prompt) - (prompt.marker is not None)
        found = self.tokenizer.encode(texts, prompt.prefix, numbers, max_tokens=limit)
        return [_prompted(tokens, prompt) for tokens in found]

    def check(self, prompt: Prompt) -> None:
        """Raise PackError for a prompt whose limit leaves no room for a token of a text."""
        added = self.tokenizer.special_tokens + (prompt.marker is not None)
        if self.limit(prompt) <= added:
            raise PackError(
                f"max_tokens of a prompt is {self.limit(prompt)}, but {added} special tokens are added to a text; "
                "export the pack again"
            )


def as_prompt(prompt: PromptOrPrefix) -> Prompt:
    """The prompt, or one with the prefix alone."""
    return Prompt(prefix=prompt) if isinstance(prompt, str) else prompt


def prompt_order(prompt: PromptOrPrefix) -> tuple[str, bytes]:
    """Key that sorts prompts, by their prefixes first."""
    known = as_prompt(prompt)
    return known.prefix, msgspec.json.encode(known)


def _prompted(tokens: Tokens, prompt: Prompt) -> PromptedTokens:
    if prompt.marker is not None:
        tokens = tokens.with_special((prompt.marker,), MARKER_PLACE)
    unattended = 0
    if prompt.fill is not None:
        missing = max(0, prompt.fill.length - len(tokens.ids))
        unattended = 0 if prompt.fill.attended else missing
        tokens = tokens.with_special((prompt.fill.token,) * missing, len(tokens.ids))
    return PromptedTokens(tokens, unattended, np.isin(tokens.ids, prompt.skip) if prompt.skip else None)
