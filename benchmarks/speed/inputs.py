"""Random texts with a given number of tokens, of words that are one token each, and their token ids."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from benchmarks.peers.job import PeerInputs
from embedpack.errors import PackError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.folder import Pack

# A word in lower case: alone (WordPiece), after a space (byte-level BPE), after a mark (SentencePiece).
WORD = re.compile("[Ġ▁]?([a-z]{2,})")
MAX_WORDS = 1000
MIXED_TEXTS = 512
MIXED_TOKENS = (6, 128)


def inputs_of_lengths(pack: Pack, lengths: Sequence[int], seed: int) -> PeerInputs:
    """Draw texts with these numbers of tokens, special ones included.

    Raises:
        PackError: the tokenizer has no whole words, or joins them.
    """
    content = pack.read(pack.manifest.text.tokenizer)
    tokenizer = TextTokenizer(content, pack.manifest.text.max_tokens)
    words = _words(tokenizer, sorted(json.loads(content)["model"]["vocab"]))
    specials = len(tokenizer.encode([words[0]], "")[0].ids) - 1
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(words, length - specials)) for length in lengths]
    ids = [encoding.ids.tolist() for encoding in tokenizer.encode(texts, "")]
    for row, length in zip(ids, lengths, strict=True):
        if len(row) != length:
            raise PackError(
                f"{pack.folder}: a text that should have {length} tokens has {len(row)}; the tokenizer joins words"
            )
    return PeerInputs(texts=texts, ids=ids)


def mixed_lengths(seed: int) -> list[int]:
    """Draw the log-uniform lengths of the texts of mixed lengths, in tokens."""
    low, high = np.log(MIXED_TOKENS)
    drawn = np.random.default_rng(seed).uniform(low, high, MIXED_TEXTS)
    lengths: list[int] = np.rint(np.exp(drawn)).astype(int).tolist()
    return lengths


def _words(tokenizer: TextTokenizer, tokens: Sequence[str]) -> list[str]:
    """Words that add exactly one token in every position."""
    vocabulary = sorted({match[1] for match in map(WORD.fullmatch, tokens) if match})
    candidates = vocabulary[:: max(1, len(vocabulary) // (2 * MAX_WORDS))]
    if not candidates:
        raise PackError("the tokenizer has no whole words in Latin letters, which the benchmark's texts are made of")
    counts = [
        [len(encoding.ids) for encoding in tokenizer.encode([" ".join([word] * times) for word in candidates], "")]
        for times in (1, 2, 3)
    ]
    shortest = min(counts[0])
    words = [
        word
        for word, one, two, three in zip(candidates, *counts, strict=True)
        if (one, two, three) == (shortest, shortest + 1, shortest + 2)
    ]
    if not words:
        raise PackError("no word of the tokenizer is one token in a text, which the benchmark's texts are made of")
    return words[:MAX_WORDS]
