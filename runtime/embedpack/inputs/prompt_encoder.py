"""Texts with a prompt to tokens: special tokens are parsed in the prompt, which is the model's, never in the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tokenizers import Encoding, Tokenizer

from embedpack.inputs.tokens import Tokens, tokens_of


class PromptEncoder:
    """Encoder of `prompt + text` for one prompt."""

    def __init__(self, tokenizer: Tokenizer, parsing: Callable[[], Tokenizer], prompt: str) -> None:
        """`tokenizer` reads special tokens as plain characters and truncates no text.

        `parsing` gives one that parses them; it is asked for if the prompt has any.
        """
        added = tokenizer.get_added_tokens_decoder()
        self._specials = {number: token.content for number, token in added.items() if token.special}
        self._plain = tokenizer
        self._prompt = prompt
        self._parsing: Tokenizer | None = None
        if any(content in prompt for content in self._specials.values()):
            self._parsing = parsing()
            self._head = self._end_of_last_special(self._parsing)

    def encode_batch(self, texts: Sequence[str], *, offsets: bool = False) -> list[Tokens]:
        """Tokenize texts that begin with the prompt; offsets, if asked for, are those in `prompt + text`."""
        if self._parsing is None:
            # The fast form computes no places.
            encode = self._plain.encode_batch if offsets else self._plain.encode_batch_fast
            return [tokens_of(encoding, offsets=offsets) for encoding in encode(texts)]
        found = self._parsing.encode_batch(texts)
        return [
            self._joined(text) if self._parses_text(encoding) else tokens_of(encoding, offsets=offsets)
            for text, encoding in zip(texts, found, strict=True)
        ]

    def _end_of_last_special(self, parsing: Tokenizer) -> int:
        prompt = parsing.encode(self._prompt, add_special_tokens=False)
        ends = [end for number, (_, end) in zip(prompt.ids, prompt.offsets, strict=True) if number in self._specials]
        return max(ends, default=0)

    def _parses_text(self, encoding: Encoding) -> bool:
        """True if a special token is spelled by the text, or by the end of the prompt and the text together."""
        return any(
            number in self._specials and not added and self._specials[number] not in self._prompt[start:]
            for number, added, (start, _) in zip(
                encoding.ids, encoding.special_tokens_mask, encoding.offsets, strict=True
            )
        )

    def _joined(self, text: str) -> Tokens:
        """The prompt up to its last special token, parsed, and the rest as plain characters."""
        assert self._parsing is not None
        head = self._parsing.encode(text[: self._head], add_special_tokens=False)
        rest = self._plain.encode(text[self._head :], add_special_tokens=False)
        whole = tokens_of(self._plain.post_process(Encoding.merge([head, rest], True)), offsets=False)
        # Those of `post_process` are trimmed twice, and count from the last token of the head.
        offsets = np.zeros((len(whole.ids), 2), np.int64)
        offsets[~whole.special] = [*head.offsets, *((a + self._head, b + self._head) for a, b in rest.offsets)]
        return replace(whole, offsets=offsets)


class PieceEncoder:
    """Encoder of plain characters without special tokens around them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """`tokenizer` reads special tokens as plain characters and truncates no text."""
        self._plain = tokenizer

    def encode_batch(self, texts: Sequence[str], *, offsets: bool = False) -> list[Tokens]:
        """Tokenize texts, with their places if `offsets`."""
        found = self._plain.encode_batch(texts, add_special_tokens=False)
        return [tokens_of(encoding, offsets=offsets) for encoding in found]
