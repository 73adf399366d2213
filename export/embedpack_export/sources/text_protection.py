"""Tokenizer whose vocabulary has special tokens as pieces, changed so that no text becomes one.

Unigram vocabularies have pieces such as </s>: a text with these characters would get the special token even where
special tokens are not parsed. A pre-tokenizer cuts such characters in two; all other texts keep their tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedpack_export.sources.tokenizer_ends import library_errors, load_tokenizer

Json = Mapping[str, Any]


def protected(document: Json, path: Path) -> Json:
    """The content of a tokenizer.json where no text becomes a special token of several characters.

    Raises:
        CheckpointError: the tokenizers library cannot read it.
    """
    spelled = _spelled(document, path)
    if not spelled:
        return document
    # One character is a token of its own if the rest of a special token follows.
    pattern = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in spelled)
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    before = document.get("pre_tokenizer")
    if before is None:
        return {**document, "pre_tokenizer": cut}
    steps = before["pretokenizers"] if before.get("type") == "Sequence" else [before]
    return {**document, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, cut]}}


def _spelled(document: Json, path: Path) -> list[str]:
    """Special tokens that their characters give in a text."""
    tokenizer = load_tokenizer(document, path)
    tokenizer.encode_special_tokens = True
    unknown = tokenizer.token_to_id(str(document["model"].get("unk_token") or ""))
    if document["model"].get("type") == "Unigram":
        unknown = document["model"].get("unk_id")
    added = tokenizer.get_added_tokens_decoder()
    specials = {number: token.content for number, token in added.items() if token.special and number != unknown}
    found = []
    for number, token in specials.items():
        texts = [token, f"a{token}", f"{token}a", f"a {token} b", token * 2]
        with library_errors(path):
            encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        if len(token) > 1 and any(number in encoding.ids for encoding in encodings):
            found.append(token)
    return sorted(found)
