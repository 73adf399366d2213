"""Unigram tokenizer in the form of XLM-RoBERTa: words and characters of the calibration texts, and unused pieces."""

from __future__ import annotations

import math
from collections import Counter

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from embedpack_export.planning.calibration_texts import read_calibration

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
SPACE = "\u2581"
# Score of a piece that is no word of the texts.
RARE = -20.0


def make_tokenizer(vocabulary: int) -> Tokenizer:
    """Tokenizer of that many pieces, the mask token last; texts have <s> before and </s> after them."""
    pieces = [*((special, 0.0) for special in SPECIALS), *_pieces(vocabulary - len(SPECIALS) - 1), (MASK, 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIALS.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in SPECIALS])
    tokenizer.add_special_tokens([AddedToken(MASK, special=True, normalized=False, lstrip=True)])
    return tokenizer


def _pieces(count: int) -> list[tuple[str, float]]:
    """Characters, then words with their logarithmic frequencies, then pieces that no text has."""
    words = Counter(f"{SPACE}{word}" for line in read_calibration(None).texts for word in line.text.split())
    characters = dict.fromkeys([SPACE, *sorted({character for word in words for character in word})], RARE)
    total = words.total()
    frequent = {word: math.log(number / total) for word, number in words.most_common() if len(word) > 1}
    pieces = list((characters | frequent).items())[:count]
    return pieces + [(f"<filler {index}>", RARE) for index in range(count - len(pieces))]
