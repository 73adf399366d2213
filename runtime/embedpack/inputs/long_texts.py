"""Texts of any length to a limited number of tokens; of a long text only a part is tokenized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from embedpack.errors import CapacityError, ItemError
from embedpack.host.memory import check_memory
from embedpack.inputs.tokenizer_library import no_panic
from embedpack.inputs.tokens import Direction, Tokens

# Characters of a long text that are tokenized first, per token of the limit; GROWTH times as many if they are too few.
CHARACTERS_PER_TOKEN = 8
GROWTH = 4
# Last characters before a cut, whose tokens may differ from those of the whole text.
MARGIN = 4096
# Longer texts must have more tokens than the limit in as many characters: dropped characters take memory as well.
MAX_CUT = 2_000_000
# Characters that are tokenized in one call, and bytes of memory that a character takes meanwhile.
GROUP_CHARACTERS = 250_000
BYTES_PER_CHARACTER = 640


class Encoder(Protocol):
    """Tokenizer of short texts."""

    def encode_batch(self, texts: Sequence[str], *, offsets: bool = False) -> list[Tokens]:
        """Tokenize texts as a whole, with the places of tokens if `offsets`."""


@dataclass(frozen=True)
class LimitedEncoder:
    """Tokenizer of texts of any length, cut to `limit` tokens with special tokens.

    Texts lose their end, or their beginning where `direction` is "left". The places of tokens are there if `offsets`.
    """

    encoder: Encoder
    limit: int
    direction: Direction
    offsets: bool = False

    def encode(self, texts: Sequence[str], numbers: Sequence[int]) -> list[Tokens]:
        """Tokenize texts; `numbers` are their positions for error messages.

        Raises:
            ItemError: the tokenizer fails at a text, or a text of millions of characters has few tokens.
            CapacityError: a text does not fit the memory.
        """
        tokens: list[Tokens] = []
        for group in _groups(texts):
            found = self._encode_group(texts[group], numbers[group])
            tokens += [text.cut(self.limit, self.direction) for text in found]
        return tokens

    @property
    def _first_cut(self) -> int:
        return CHARACTERS_PER_TOKEN * self.limit + MARGIN

    def _encode_group(self, texts: Sequence[str], numbers: Sequence[int]) -> list[Tokens]:
        cut = self._first_cut
        short = [text for text in texts if len(text) <= cut]
        try:
            with no_panic():
                tokens = iter(self.encoder.encode_batch(short, offsets=self.offsets))
        except Exception:  # tokenizers raises bare Exception; one by one, to find the text
            tokens = (self._encode(text, number) for text, number in zip(texts, numbers, strict=True)
                      if len(text) <= cut)  # fmt: skip
        return [
            next(tokens) if len(text) <= cut else self._encode_long(text, number)
            for text, number in zip(texts, numbers, strict=True)
        ]

    def _encode_long(self, text: str, number: int) -> Tokens:
        """Tokenize as much of a text as its first `limit` tokens, and whether there are more, depend on.

        Tokenizers work from left to right on words (runs between spaces), so a cut changes at most the tokens of the
        word that it divides. So tokens that end MARGIN characters before the cut are those of the whole text, unless a
        word is longer than MARGIN. With more than `limit` of them, the rest of the text is not needed. A text that
        loses its beginning is tokenized as a whole.
        """
        cut, last = self._first_cut, max(MAX_CUT, GROWTH * self._first_cut)
        while cut < len(text) and self.direction == "right":
            tokens = self._encode(text[:cut], number)
            if tokens.end_of_first_beyond(self.limit) <= cut - MARGIN:
                return tokens
            if cut == last:
                raise ItemError(
                    "text",
                    number,
                    f"has {len(text)} characters, but at most {self.limit} tokens in the first "
                    f"{cut}; remove runs of spaces, of control characters, or of letters without a space",
                )
            cut = min(cut * GROWTH, last)
        return self._encode(text, number)

    def _encode(self, text: str, number: int) -> Tokens:
        what = f"text {number}: tokenizing {len(text)} characters"
        check_memory(len(text) * BYTES_PER_CHARACTER, what, "split it, or free some memory")
        try:
            with no_panic():
                (tokens,) = self.encoder.encode_batch([text], offsets=True)
        except MemoryError as cause:
            raise CapacityError(f"{what} does not fit the memory; split it, or free some") from cause
        except Exception as cause:  # tokenizers raises bare Exception
            problem = f"fails in the tokenizer at its {len(text)} characters: {cause}; split it, or leave it out"
            raise ItemError("text", number, problem) from cause
        return tokens


def _groups(texts: Sequence[str]) -> Iterator[slice]:
    """Slices of consecutive texts of at most GROUP_CHARACTERS together; a longer text is alone."""
    start = characters = 0
    for index, text in enumerate(texts):
        characters += len(text)
        if characters > GROUP_CHARACTERS and index > start:
            yield slice(start, index)
            start, characters = index, len(text)
    if texts:
        yield slice(start, len(texts))
