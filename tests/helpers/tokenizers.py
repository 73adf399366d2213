"""Small tokenizers of three kinds, with the same special tokens."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from embedpack.inputs.tokens import Tokens

SPECIALS = ("<s>", "</s>", "[Q]", "<|im_start|>")


def word_piece() -> Tokenizer:
    letters = [chr(code) for code in range(33, 127)]
    words = ["[UNK]", *letters, *(f"##{letter}" for letter in letters), "cat", "roof", "query"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("c", "a"), ("ca", "t"), ("Ġ", "c"), ("i", "m"), ("<", "|")]
    words = [*alphabet, *("".join(pair) for pair in pairs)]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram() -> Tokenizer:
    letters = [(chr(code), -10.0) for code in range(33, 127)]
    words = [("<unk>", 0.0), ("▁", -3.0), ("▁cat", -4.0), ("cat", -6.0), ("▁Roof", -4.0), *letters]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def make(kind: str) -> Tokenizer:
    tokenizer = {"word piece": word_piece, "byte level": byte_level, "unigram": unigram}[kind]()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    return tokenizer


TOKENIZERS = {kind: make(kind) for kind in ("word piece", "byte level", "unigram")}


def special_id(kind: str, token: str) -> int:
    """Id of a special token."""
    number = TOKENIZERS[kind].token_to_id(token)
    assert number is not None
    return number


def places(tokens: Tokens) -> list[list[int]]:
    """Places of tokens in their text."""
    assert tokens.offsets is not None
    found: list[list[int]] = tokens.offsets.tolist()
    return found
