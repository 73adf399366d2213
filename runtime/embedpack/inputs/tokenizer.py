"""Texts to token ids, by the tokenizer of a pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from embedpack.errors import CapacityError, ItemError, PackError
from embedpack.host.memory import check_memory
from embedpack.inputs.prompt_encoder import PromptEncoder
from embedpack.inputs.tokenizer_check import check_tokenizer

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


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text, int64 [length]; `special`, bool [length], marks those that the tokenizer added."""

    ids: npt.NDArray[np.int64]
    special: npt.NDArray[np.bool_]
    truncated: bool


class TextTokenizer:
    """A Hugging Face tokenizer that adds the model's special tokens and reads those in a text as plain characters.

    Special tokens in a prompt are parsed. Long texts lose their end, or their beginning if the truncation in
    tokenizer.json has the direction "Left".
    """

    def __init__(self, tokenizer_json: bytes, max_tokens: int) -> None:
        """Load tokenizer.json; `max_tokens` includes special tokens. PackError if it cannot be read."""
        with _load_errors():
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        check_tokenizer(tokenizer_json)
        with _load_errors():
            special = self._tokenizer.num_special_tokens_to_add(False)
        if max_tokens <= special:
            raise PackError(
                f"max_tokens is {max_tokens}, but the tokenizer adds {special} special tokens to a text; "
                "export the pack again"
            )
        self.max_tokens = max_tokens
        with _load_errors():
            self._direction = str((self._tokenizer.truncation or {}).get("direction", "right")).lower()
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens, direction=self._direction)
        # "[SEP]" inside a user's text is text: it must not end the sequence or stand for a prompt.
        self._tokenizer.encode_special_tokens = True
        self._last_encoder: tuple[str, PromptEncoder] | None = None

    @property
    def largest_id(self) -> int:
        """The largest token id of a text without a prompt; special tokens are only those that the tokenizer adds."""
        with _load_errors():
            added = self._tokenizer.get_added_tokens_decoder()
            absent = {number for number, token in added.items() if token.special} - set(self._tokenizer.encode("").ids)
            count = self._tokenizer.get_vocab_size(with_added_tokens=True)
            # Ids seldom have gaps, and checking that is several times faster than fetching all tokens.
            if None not in map(self._tokenizer.id_to_token, range(count)):
                return next(number for number in range(count - 1, -2, -1) if number not in absent)
            return max({-1, *self._tokenizer.get_vocab(with_added_tokens=True).values()} - absent)

    def encode(self, texts: Sequence[str], prompt: str, numbers: Sequence[int] | None = None) -> list[Tokens]:
        """Tokenize `prompt + text` for each text that has passed `embedpack.inputs.items.check_text`.

        Of a long text only a part is tokenized, see `_encode_long`. `numbers` are the positions of the texts for error
        messages, default: 0, 1, ...

        Raises:
            InputError: the tokenizer fails at a text, or a text of millions of characters has few tokens.
            CapacityError: a text does not fit the memory.
        """
        numbers = range(len(texts)) if numbers is None else numbers
        encoder = self._encoder(prompt)
        tokens: list[Tokens] = []
        for group in _groups(texts):
            tokens += self._encode_group(encoder, [prompt + text for text in texts[group]], numbers[group])
        return tokens

    def _encoder(self, prompt: str) -> PromptEncoder:
        """Encoder of texts with a prompt; the last one is kept, as calls repeat their prompt."""
        last = self._last_encoder
        if last is None or last[0] != prompt:
            with _load_errors():
                last = self._last_encoder = prompt, PromptEncoder(self._tokenizer, prompt)
        return last[1]

    @property
    def _first_cut(self) -> int:
        return CHARACTERS_PER_TOKEN * self.max_tokens + MARGIN

    def _encode_group(self, encoder: PromptEncoder, texts: Sequence[str], numbers: Sequence[int]) -> list[Tokens]:
        short = [text for text in texts if len(text) <= self._first_cut]
        try:
            with _no_panic():
                encodings = iter(encoder.encode_batch(short))
        except Exception:  # tokenizers raises bare Exception; one by one, to find the text
            encodings = (_encode(encoder, text, number) for text, number in zip(texts, numbers, strict=True)
                         if len(text) <= self._first_cut)  # fmt: skip
        return [
            _tokens(next(encodings) if len(text) <= self._first_cut else self._encode_long(encoder, text, number))
            for text, number in zip(texts, numbers, strict=True)
        ]

    def _encode_long(self, encoder: PromptEncoder, text: str, number: int) -> Encoding:
        """Tokenize as much of a text as its first `max_tokens` tokens, and whether there are more, depend on.

        Tokenizers work from left to right on words (runs between spaces), so a cut changes at most the tokens of the
        word that it divides. So tokens that end MARGIN characters before the cut are those of the whole text, unless a
        word is longer than MARGIN. With more than `max_tokens` of them, the rest of the text is not needed. A text that
        loses its beginning is tokenized as a whole.
        """
        cut, last = self._first_cut, max(MAX_CUT, GROWTH * self._first_cut)
        while cut < len(text) and self._direction == "right":
            encoding = _encode(encoder, text[:cut], number)
            if _end_of_limit(encoding) <= cut - MARGIN:
                return encoding
            if cut == last:
                raise ItemError(
                    "text",
                    number,
                    f"has {len(text)} characters, but at most {self.max_tokens} tokens in the first "
                    f"{cut}; remove runs of spaces, of control characters, or of letters without a space",
                )
            cut = min(cut * GROWTH, last)
        return _encode(encoder, text, number)


def _encode(encoder: PromptEncoder, text: str, number: int) -> Encoding:
    what = f"text {number}: tokenizing {len(text)} characters"
    check_memory(len(text) * BYTES_PER_CHARACTER, what, "split it, or free some memory")
    try:
        with _no_panic():
            return encoder.encode(text)
    except MemoryError as cause:
        raise CapacityError(f"{what} does not fit the memory; split it, or free some") from cause
    except Exception as cause:  # tokenizers raises bare Exception
        problem = f"fails in the tokenizer at its {len(text)} characters: {cause}; split it, or leave it out"
        raise ItemError("text", number, problem) from cause


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


def _tokens(encoding: Encoding) -> Tokens:
    return Tokens(
        np.array(encoding.ids, np.int64),
        np.array(encoding.special_tokens_mask, np.bool_),
        truncated=bool(encoding.overflowing),
    )


def _end_of_limit(encoding: Encoding) -> float:
    """Position in the text, in characters, of the end of the first token beyond the limit; infinite without one."""
    if not encoding.overflowing:
        return float("inf")
    beyond = encoding.overflowing[0]
    return next(
        (end for (_, end), special in zip(beyond.offsets, beyond.special_tokens_mask, strict=True) if not special),
        float("inf"),
    )


@contextmanager
def _no_panic() -> Iterator[None]:
    """Turn the PanicException of the tokenizers library, which is no Exception, into a RuntimeError."""
    try:
        yield
    except BaseException as cause:
        # pyo3 defines the class anew in every library and exports it from none.
        if type(cause).__name__ != "PanicException":
            raise
        raise RuntimeError(str(cause)) from cause


@contextmanager
def _load_errors() -> Iterator[None]:
    """Turn errors and panics of the tokenizers library into a PackError."""
    try:
        with _no_panic():
            yield
    except MemoryError as cause:
        raise CapacityError("tokenizer.json: does not fit the memory; free some") from cause
    except Exception as cause:  # tokenizers raises bare Exception
        raise PackError(f"tokenizer.json: the tokenizers library cannot read it: {cause}; copy it again") from cause
