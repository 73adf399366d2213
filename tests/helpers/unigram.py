"""Tiny Unigram tokenizer in the layout of XLM-RoBERTa's: special tokens are pieces of the vocabulary."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


def make_unigram() -> Tokenizer:
    """Letters and a few words with scores; <s> and </s> around a text, <mask> at the end of the vocabulary."""
    letters = [(chr(code), -10.0) for code in range(33, 127)]
    words = [(f"\u2581{word}", -5.0) for word in ("the", "cat", "roof", "query", "find", "a")]
    pieces = [*((token, 0.0) for token in SPECIALS), ("\u2581", -3.0), *words, *letters, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    return tokenizer
