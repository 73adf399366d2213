"""Changed tokenizer.json files in a pack whose digests fit, with parts of every kind of the tokenizers library."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from embedpack import Embedder
from tests.fuzz.mutations import json_bytes, mutate_bytes, mutate_json
from tests.fuzz.outcome import Attempt, Fuzzer
from tests.fuzz.packs import TEXTS, PackCopy, check_alone, vectors_of
from tests.helpers.tiny_pack import TINY_PACK

NAME = "tokenizer.json"
REGEX = {"Regex": r"\s+|\w"}
# A precompiled table of sentencepiece: 4 bytes of a length, a trie, and text.
CHARSMAP = "BAAAAAAAAAAAAAAAYQA="
VOCABULARY = {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "▁": 4, "Ġ": 5, "<0x41>": 6}
NORMALIZERS = (
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
     "lowercase": True},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "StripAccents"}, {"type": "NFKC"},
    {"type": "Lowercase"}, {"type": "Nmt"}, {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
    {"type": "Replace", "pattern": REGEX, "content": "x"}, {"type": "Replace", "pattern": {"String": ""},
                                                            "content": "y"},
    {"type": "Prepend", "prepend": "▁"}, {"type": "ByteLevel"},
)  # fmt: skip
# Attacks: texts that become longer, or random.
GROWING = (
    {"type": "Replace", "pattern": {"String": ""}, "content": "e" * 1000}, {"type": "Prepend", "prepend": "e" * 10**6},
    {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 60},
    {"type": "Replace", "pattern": {"Regex": "e*"}, "content": "e" * 60},
)  # fmt: skip
PRE_TOKENIZERS = (
    {"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "UnicodeScripts"},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Delimiter", "delimiter": "a"}, {"type": "Digits", "individual_digits": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "Split", "pattern": REGEX, "behavior": "Removed", "invert": False},
    {"type": "FixedLength", "length": 3},
)  # fmt: skip
POST_PROCESSORS = (
    {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000, "pair": [],
     "special_tokens": {}},
    None, {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
     "add_prefix_space": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
)  # fmt: skip
MODELS = (
    {"type": "BPE", "dropout": 0.5, "unk_token": "<unk>", "continuing_subword_prefix": None,
     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
     "vocab": VOCABULARY, "merges": [["a", "b"]]},
    {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "ignore_merges": False,
     "vocab": VOCABULARY, "merges": [["a", "b"]]},
    {"type": "Unigram", "unk_id": 0, "vocab": [[name, -float(number)] for name, number in VOCABULARY.items()],
     "byte_fallback": True},
    {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "<unk>"},
    {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
     "vocab": VOCABULARY},
)  # fmt: skip
TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 2}
PADDING = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0,
           "pad_token": "[PAD]"}  # fmt: skip


def prepare(folder: Path) -> Attempt:
    """Tries with changed tokenizers of the tiny pack."""
    pack = PackCopy(TINY_PACK, folder / "pack")
    sound = pack.read(NAME)

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.2:
            content = mutate_bytes(sound, rng)
        else:
            parts = with_other_parts(json.loads(sound), rng)
            content = json_bytes(parts if rng.random() < 0.2 else mutate_json(parts, rng), rng)
        with pack.replaced({NAME: content}) as changed:
            embedder = Embedder(changed, weights="fp32", threads=1)
            check_alone(embedder, TEXTS[0], vectors_of(embedder)[0])

    return attempt


def with_other_parts(tokenizer: Any, rng: random.Random) -> Any:
    """A tokenizer in which some parts are of another kind."""
    others: dict[str, Any] = {
        "normalizer": {"type": "Sequence", "normalizers": rng.sample((*NORMALIZERS, *GROWING), 2)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": rng.sample(PRE_TOKENIZERS, 2)},
        "post_processor": rng.choice(POST_PROCESSORS),
        "model": rng.choice(MODELS),
        "truncation": TRUNCATION,
        "padding": PADDING,
    }
    chosen = rng.sample(list(others), rng.randint(0, 3))
    return {**tokenizer, **{name: others[name] for name in chosen}}


FUZZER = Fuzzer("tokenizer.json", 2500, prepare)
