"""Texts with a wanted number of tokens, made of words that are one token each: texts and token ids say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers.job import Inputs
from embedpack.errors import PackError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.folder import Pack

# A whole word in lower case: as it is (WordPiece), after a space (byte-level BPE), after a mark (SentencePiece).
WORD = re.compile("[Ġ▁]?([a-z]{2,})")
MOST_WORDS = 1000
MIXED_TEXTS = 512
MIXED_TOKENS = (6, 128)


def inputs_of_lengths(pack: Pack, lengths: Sequence[int], seed: int) -> Inputs:
    """Texts of these numbers of tokens, special ones included, and their token ids.

    Raises:
        PackError: the tokenizer knows no whole words, or too few of them make a text.
    """
    content = pack.read(pack.manifest.text.tokenizer)
    tokenizer = TextTokenizer(content, pack.manifest.text.max_tokens)
    words = _words(tokenizer, sorted(json.loads(content)["model"]["vocab"]))
    specials = len(tokenizer.encode([words[0]], "")[0].ids) - 1
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(words, length - specials)) for length in lengths]
    ids = [item.ids.tolist() for item in tokenizer.encode(texts, "")]
    found = [len(item) for item in ids]
    if found != list(lengths):
        row = next(row for row, (one, other) in enumerate(zip(found, lengths, strict=True)) if one != other)
        raise PackError(
            f"{pack.folder}: a text that should have {lengths[row]} tokens has {found[row]}; the tokenizer joins words"
        )
    return Inputs(texts=texts, ids=ids)


def mixed_lengths(seed: int) -> list[int]:
    """Lengths in tokens of the mixed corpus, log-uniform."""
    low, high = np.log(MIXED_TOKENS)
    drawn = np.random.default_rng(seed).uniform(low, high, MIXED_TEXTS)
    lengths: list[int] = np.rint(np.exp(drawn)).astype(int).tolist()
    return lengths


def _words(tokenizer: TextTokenizer, tokens: Sequence[str]) -> list[str]:
    """Words that add exactly one token wherever they stand."""
    found = [match[1] for match in map(WORD.fullmatch, tokens) if match]
    candidates = sorted(set(found))[:: max(1, len(set(found)) // (2 * MOST_WORDS))]
    if not candidates:
        raise PackError("the tokenizer has no whole words in Latin letters; no texts can be made with it")
    counts = [
        [len(item.ids) for item in tokenizer.encode([" ".join([word] * times) for word in candidates], "")]
        for times in (1, 2, 3)
    ]
    shortest = min(counts[0])
    words = [
        word
        for word, one, two, three in zip(candidates, *counts, strict=True)
        if (one, two, three) == (shortest, shortest + 1, shortest + 2)
    ]
    if not words:
        raise PackError("no word of the tokenizer stays one token in a text; no texts can be made with it")
    return words[:MOST_WORDS]


def write_inputs(path: Path, inputs: Inputs) -> None:
    """As JSON, which peers read."""
    path.write_text(json.dumps({"texts": inputs.texts, "ids": inputs.ids}), "utf-8")
