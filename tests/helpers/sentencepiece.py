"""Tiny tokenizers of SentencePiece: Unigram as XLM-RoBERTa's, whose special tokens are pieces, and BPE as Llama 2's."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

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


def make_llama() -> Tokenizer:
    """Bytes, letters and a few words, with spaces put by a normalizer; <s> before a text."""
    merges = [("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e"), ("c", "a"), ("ca", "t")]
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256)), "\u2581", *letters]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *("".join(pair) for pair in merges)])}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in pieces[:3]])
    return tokenizer
