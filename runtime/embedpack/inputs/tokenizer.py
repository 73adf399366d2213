"""Texts to token ids, by the tokenizer of a pack."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from embedpack.errors import ItemError, PackError
from embedpack.host.memory import check_memory
from embedpack.inputs.long_texts import BYTES_PER_CHARACTER, GROUP_CHARACTERS, LimitedEncoder
from embedpack.inputs.prompt_encoder import PieceEncoder, PromptEncoder
from embedpack.inputs.tokenizer_check import check_tokenizer, first_word_differs
from embedpack.inputs.tokenizer_library import load_errors
from embedpack.inputs.tokens import Direction, Tokens

# Most tokens of texts that are not cut to the limit of the model: documents in windows, texts beside a document.
ALL_TOKENS = 1_048_576


@dataclass(frozen=True)
class TextRules:
    """Treatment of every text: whether white space around it is taken off, and ids behind it, placed after the cut."""

    strip: bool = False
    after: tuple[int, ...] = ()


class TextTokenizer:
    """A Hugging Face tokenizer that adds the model's special tokens and reads those in a text as plain characters.

    Special tokens in a prompt are parsed. Long texts lose their end, or their beginning if the truncation in
    tokenizer.json has the direction "Left".

    Attributes:
        max_tokens: maximum length, special tokens included.
        special_tokens: number of special tokens that are added to a text, ids behind it included.
        rules: treatment of every text.
        first_word_differs: whether the first word of a sequence alone gets a space before it.
    """

    def __init__(self, tokenizer_json: bytes, max_tokens: int, rules: TextRules | None = None) -> None:
        """Load tokenizer.json; `max_tokens` includes special tokens. PackError if it cannot be read."""
        with load_errors():
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        check_tokenizer(tokenizer_json)
        self.first_word_differs = first_word_differs(tokenizer_json)
        self.rules = rules or TextRules()
        with load_errors():
            self.special_tokens = self._tokenizer.num_special_tokens_to_add(False) + len(self.rules.after)
        if max_tokens <= self.special_tokens:
            raise PackError(
                f"max_tokens is {max_tokens}, but the tokenizer adds {self.special_tokens} special tokens to a text; "
                "export the pack again"
            )
        self.max_tokens = max_tokens
        with load_errors():
            left = str((self._tokenizer.truncation or {}).get("direction", "right")).lower() == "left"
            self._direction: Direction = "left" if left else "right"
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        # "[SEP]" inside a user's text is text: it must not end the sequence or stand for a prompt.
        self._tokenizer.encode_special_tokens = True
        self._last_encoder: tuple[str, PromptEncoder] | None = None

    @property
    def largest_id(self) -> int:
        """The largest token id of a text without a prompt; special tokens are only those that the tokenizer adds."""
        with load_errors():
            added = self._tokenizer.get_added_tokens_decoder()
            absent = {number for number, token in added.items() if token.special} - set(self._tokenizer.encode("").ids)
            count = self._tokenizer.get_vocab_size(with_added_tokens=True)
            # Ids seldom have gaps, and checking that is several times faster than fetching all tokens.
            if None not in map(self._tokenizer.id_to_token, range(count)):
                return next(number for number in range(count - 1, -2, -1) if number not in absent)
            return max({-1, *self._tokenizer.get_vocab(with_added_tokens=True).values()} - absent)

    def encode(
        self,
        texts: Sequence[str],
        prompt: str,
        numbers: Sequence[int] | None = None,
        *,
        max_tokens: int | None = None,
        offsets: bool = False,
    ) -> list[Tokens]:
        """Tokenize `prompt + text` for each text that has passed `embedpack.inputs.items.check_text`.

        Of a long text only a part is tokenized, see `embedpack.inputs.long_texts`. `numbers` are the positions of the
        texts for error messages, default: 0, 1, ... `max_tokens` is a lower limit than that of the tokenizer. With
        `offsets`, tokens have their places in the texts.

        Raises:
            InputError: the tokenizer fails at a text, or a text of millions of characters has few tokens.
            CapacityError: a text does not fit the memory.
        """
        limit = min(self.max_tokens, max_tokens or self.max_tokens)
        return self._encode(texts, prompt, _numbers(texts, numbers), limit, offsets=offsets)

    def encode_whole(self, text: str, prompt: str, number: int) -> Tokens:
        """Tokenize `prompt + text` beyond the limit of the model, with places; `number` is that of the document.

        Raises:
            ItemError: the tokenizer fails at the text, or it has more than ALL_TOKENS tokens.
            CapacityError: it does not fit the memory.
        """
        # Of many short documents, reading the state of the memory would take longest.
        if len(text) > GROUP_CHARACTERS:
            what = f"document {number}: tokenizing {len(text)} characters"
            check_memory(len(text) * BYTES_PER_CHARACTER, what, "split it, or free some memory")
        (tokens,) = self._encode([text], prompt, [number], ALL_TOKENS, offsets=True)
        if tokens.truncated:
            raise ItemError("document", number, f"has more than {ALL_TOKENS} tokens; split it")
        return tokens

    def _encode(
        self, texts: Sequence[str], prompt: str, numbers: Sequence[int], limit: int, *, offsets: bool
    ) -> list[Tokens]:
        after = self.rules.after
        encoder = LimitedEncoder(self._encoder(prompt), limit - len(after), self._direction, offsets)
        stripped = [text.strip() for text in texts] if self.rules.strip else texts
        found = encoder.encode([prompt + text for text in stripped], numbers)
        if offsets:
            leading = [len(text) - len(text.lstrip()) if self.rules.strip else 0 for text in texts]
            found = [tokens.behind(len(prompt), spaces) for tokens, spaces in zip(found, leading, strict=True)]
        return [tokens.with_special(after, len(tokens.ids)) for tokens in found] if after else found

    def encode_pieces(self, texts: Sequence[str], limit: int, numbers: Sequence[int] | None = None) -> list[Tokens]:
        """Tokenize texts as plain characters, at most `limit` tokens of each, without special tokens around them.

        Long texts lose their end. Errors and `numbers` as of `encode`.
        """
        return LimitedEncoder(PieceEncoder(self._tokenizer), limit, "right").encode(texts, _numbers(texts, numbers))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def _parsing(self) -> Tokenizer:
        """A copy that parses special tokens; it takes as much time and memory as the tokenizer."""
        parsing = copy.deepcopy(self._tokenizer)
        parsing.encode_special_tokens = False
        return parsing

    def _encoder(self, prompt: str) -> PromptEncoder:
        """Encoder of texts with a prompt; the last one is kept, as calls repeat their prompt."""
        last = self._last_encoder
        if last is None or last[0] != prompt:
            with load_errors():
                encoder = PromptEncoder(self._tokenizer, lambda: self._parsing, prompt)
                last = self._last_encoder = prompt, encoder
        return last[1]


def _numbers(texts: Sequence[str], numbers: Sequence[int] | None) -> Sequence[int]:
    return range(len(texts)) if numbers is None else numbers
