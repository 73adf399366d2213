"""Texts to token ids, as the pack's manifest says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from embedpack.errors import InputError, PackError
from embedpack.inputs.limits import MAX_CHARACTERS


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text.

    Attributes:
        ids: int64 [length].
        special: which of them the tokenizer added, bool [length].
        cut: the text was longer and lost its end.
    """

    ids: npt.NDArray[np.int64]
    special: npt.NDArray[np.bool_]
    cut: bool


class TextTokenizer:
    """A Hugging Face tokenizer that adds the model's special tokens and never parses any out of a text."""

    def __init__(self, tokenizer_json: bytes, max_tokens: int) -> None:
        """Load a tokenizer.

        Args:
            tokenizer_json: content of tokenizer.json.
            max_tokens: longest sequence, special tokens included.

        Raises:
            PackError: the tokenizer cannot be read.
        """
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except Exception as cause:  # tokenizers raises bare Exception
            raise PackError(f"tokenizer.json: the tokenizers library cannot read it: {cause}; copy it again") from cause
        special = self._tokenizer.num_special_tokens_to_add(False)
        if max_tokens <= special:
            raise PackError(
                f"max_tokens is {max_tokens}, but the tokenizer adds {special} special tokens to a text; "
                "export the pack again"
            )
        self.max_tokens = max_tokens
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        # "[SEP]" inside a user's text is text: it must not end the sequence or stand for a prompt.
        self._tokenizer.encode_special_tokens = True

    @property
    def largest_id(self) -> int:
        """The largest token id that a text can contain."""
        count = self._tokenizer.get_vocab_size(with_added_tokens=True)
        # As a rule ids have no gaps; to see that is several times faster than to fetch all tokens.
        if None not in map(self._tokenizer.id_to_token, range(count)):
            return count - 1
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, texts: Sequence[str], prompt: str, first: int = 0) -> list[Tokens]:
        """Tokenise `prompt + text` for each text.

        Args:
            texts: the texts.
            prompt: prefix of every text.
            first: number of the first text in error messages.

        Raises:
            InputError: an item is no text, is empty, or holds what cannot be tokenised.
        """
        check_texts(texts, first)
        encodings = self._tokenizer.encode_batch([prompt + text for text in texts])
        return [
            Tokens(
                np.array(item.ids, np.int64), np.array(item.special_tokens_mask, np.bool_), cut=bool(item.overflowing)
            )
            for item in encodings
        ]


def check_texts(texts: Sequence[str], first: int = 0) -> None:
    """Refuse what is no text, or none that can be tokenised.

    Args:
        texts: the texts.
        first: number of the first text in error messages.

    Raises:
        InputError: see above.
    """
    for index, text in enumerate(texts, first):
        _check_text(index, text)


def _check_text(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"item {index} is of type {type(text).__name__}; a text must be a str")
    if not text or text.isspace():
        raise InputError(f"text {index} is empty; leave it out, or give it a placeholder of your choice")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"text {index} has {len(text)} characters, at most {MAX_CHARACTERS} are taken; split it")
    if "\0" in text:
        raise InputError(f"text {index} has a NUL character at position {text.index(chr(0))}; is it binary data?")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise InputError(
            f"text {index} has a lone surrogate (U+{ord(text[cause.start]):04X}) at position {cause.start}; "
            "it was decoded wrongly: try text.encode('utf-8', 'replace').decode()"
        ) from cause
