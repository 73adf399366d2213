"""Tokenizers of the checkpoint: a small byte-level BPE with Qwen2's rules, or a given one with vision tokens added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# Qwen2's pattern of words.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
SPECIALS = tuple(f"<|{name}|>" for name in NAMES)
# Between <|im_end|> and <|vision_start|> in Qwen2.5's vocabulary.
UNUSED_SPECIALS = tuple(f"<|{name}_{side}|>" for name in ("object_ref", "box", "quad") for side in ("start", "end"))
WORD_PIECES = 592
REAL_WORD_PIECES = 151_643


@dataclass(frozen=True)
class V4Tokenizer:
    """A tokenizer and the ids of its special tokens."""

    tokenizer: Tokenizer
    ids: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Minimum number of rows of the embedding."""
        return max(self.tokenizer.get_vocab().values()) + 1


def train_tokenizer() -> V4Tokenizer:
    """Train a byte-level BPE of 600 tokens on the calibration texts."""
    tokenizer = _qwen2(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=WORD_PIECES,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    lines = (files("embedpack_export") / "data" / "calibration.jsonl").read_text("utf-8").splitlines()
    tokenizer.train_from_iterator((json.loads(line)["text"] for line in lines), trainer)
    return _with_specials(tokenizer, SPECIALS)


def fill_tokenizer() -> V4Tokenizer:
    """Fill the small BPE with unused tokens up to Qwen2.5's size, so that special tokens have their real ids."""
    model = json.loads(train_tokenizer().tokenizer.to_str())["model"]
    vocabulary = dict(model["vocab"])
    vocabulary |= {f"<filler {index}>": index for index in range(len(vocabulary), REAL_WORD_PIECES)}
    tokenizer = _qwen2(models.BPE(vocabulary, [(left, right) for left, right in model["merges"]]))
    return _with_specials(tokenizer, (*SPECIALS[:3], *UNUSED_SPECIALS, *SPECIALS[3:]))


def load_tokenizer(path: Path) -> V4Tokenizer:
    """Load a tokenizer.json and append the special tokens that it does not have."""
    return _with_specials(Tokenizer.from_file(str(path)), SPECIALS)


def _with_specials(tokenizer: Tokenizer, names: tuple[str, ...]) -> V4Tokenizer:
    missing = [name for name in names if tokenizer.token_to_id(name) is None]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in missing])
    vocabulary = tokenizer.get_vocab()
    return V4Tokenizer(tokenizer, {name: vocabulary[name] for name in SPECIALS})


def _qwen2(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
