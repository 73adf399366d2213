"""Check of tokenizer.json before it is used: the tokenizers library ends the process if the memory is full.

Refused are parts that make a text many times longer, and dropout, with which a text has other tokens each time.
Vocabularies are not read here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from math import prod
from typing import Any

import msgspec

from embedpack.errors import PackError

# Largest number of characters that normalizers may make of one; published tokenizers have less than 40.
MAX_GROWTH = 64
# Prefixes and suffixes of tokens, such as "##", and the words that WordPiece splits; it tries all parts of a word.
MAX_AFFIX = 64
MAX_WORD = 10_000


class _Model(msgspec.Struct, frozen=True):
    dropout: Any = None
    continuing_subword_prefix: Any = None
    end_of_word_suffix: Any = None
    max_input_chars_per_word: Any = None


class _Tokenizer(msgspec.Struct, frozen=True):
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    model: _Model | None = None


def check_tokenizer(content: bytes) -> None:
    """Raise PackError for a tokenizer.json that has such parts; the library has read it, so other damage is known."""
    try:
        tokenizer = msgspec.json.decode(content, type=_Tokenizer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise PackError(f"tokenizer.json: cannot be read: {cause}; copy it again") from cause
    for problem in _problems(tokenizer):
        raise PackError(f"tokenizer.json: {problem}; use another tokenizer")


def first_word_differs(content: bytes) -> bool:
    """True if a tokenizer.json, which has been checked, puts a space before the first word of a sequence alone."""
    tokenizer = msgspec.json.decode(content, type=_Tokenizer)
    return any(part.get("prepend_scheme") == "first" for part in _parts(tokenizer.pre_tokenizer, "pretokenizers"))


def _problems(tokenizer: _Tokenizer) -> Iterator[str]:
    model = tokenizer.model or _Model()
    if model.dropout:
        yield f"model.dropout is {model.dropout!r}, with which a text has other tokens each time"
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if len(affix := getattr(model, name) or "") > MAX_AFFIX:
            yield f"model.{name} has {len(affix)} characters, at most {MAX_AFFIX} are taken"
    if isinstance(model.max_input_chars_per_word, int) and model.max_input_chars_per_word > MAX_WORD:
        yield f"model.max_input_chars_per_word is above {MAX_WORD}"
    growth = prod(_growth(part) for part in _parts(tokenizer.normalizer, "normalizers"))
    if growth > MAX_GROWTH:
        yield f"the normalizers can make {growth} characters of one, at most {MAX_GROWTH} are taken"
    for part in _parts(tokenizer.post_processor, "processors"):
        single = part.get("single")
        pieces = single if isinstance(single, list) else []
        texts = sum("Sequence" in piece for piece in pieces if isinstance(piece, dict))
        if texts > 1:
            yield f"the template of the post_processor has the text {texts} times"


def _parts(part: Any, key: str) -> Iterator[dict[str, Any]]:
    """Parts of a normalizer or post processor, those of sequences (`key`) one by one."""
    if not isinstance(part, dict):
        return
    inner = part.get(key)
    for each in inner if isinstance(inner, list) else ():
        yield from _parts(each, key)
    yield part


def _growth(normalizer: dict[str, Any]) -> int:
    """Largest number of characters that a normalizer makes of one, about."""
    match normalizer:  # the library accepts parts without "type"
        case {"content": str(content), "pattern": {"String": str(pattern)}} if pattern:
            return -(-max(len(content), len(pattern)) // len(pattern))
        case {"content": str(content)}:  # an expression can match between any two characters
            return 1 + len(content)
        case {"prepend": str(prefix)}:
            return 1 + len(prefix) // MAX_GROWTH
        case {"precompiled_charsmap": str(table)}:
            return max(1, _longest_replacement(table) // MAX_GROWTH)
    return 1


def _longest_replacement(table: str) -> int:
    """Bytes of the longest text in a table of sentencepiece: a length, a trie of that length, texts that end with 0."""
    try:
        content = base64.b64decode(table)
    except binascii.Error:
        return 0
    texts = content[4 + int.from_bytes(content[:4], "little") :]
    return max(map(len, texts.split(b"\0")))
