"""Texts to token ids, by the tokenizer of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from embedpack.errors import CapacityError, PackError


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text, int64 [length]; `special`, bool [length], marks those that the tokenizer added."""

    ids: npt.NDArray[np.int64]
    special: npt.NDArray[np.bool_]
    truncated: bool


class TextTokenizer:
    """A Hugging Face tokenizer that adds the model's special tokens and reads those in a text as plain characters."""

    def __init__(self, tokenizer_json: bytes, max_tokens: int) -> None:
        """Load tokenizer.json; `max_tokens` includes special tokens. PackError if it cannot be read."""
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except MemoryError as cause:
            raise CapacityError("tokenizer.json: does not fit the memory; free some") from cause
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
        # Ids seldom have gaps, and checking that is several times faster than fetching all tokens.
        if None not in map(self._tokenizer.id_to_token, range(count)):
            return count - 1
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, texts: Sequence[str], prompt: str) -> list[Tokens]:
        """Tokenize `prompt + text` for each text that has passed `embedpack.inputs.items.check_text`."""
        encodings = self._tokenizer.encode_batch([prompt + text for text in texts])
        return [
            Tokens(
                np.array(encoding.ids, np.int64),
                np.array(encoding.special_tokens_mask, np.bool_),
                truncated=bool(encoding.overflowing),
            )
            for encoding in encodings
        ]
