"""Tokenizers that make texts much longer, or random, are refused before they are used."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from embedpack import PackError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.inputs.tokenizer_check import check_tokenizer

LETTERS = {"String": "``"}
EXPRESSION = {"Regex": " {2,}"}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
VOCABULARY = {"a": 0, "b": 1, "ab": 2}
BPE = {
    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
    "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": VOCABULARY, "merges": ["a b"],
}  # fmt: skip


def charsmap(longest: int) -> str:
    """A table of sentencepiece with an empty trie and one text."""
    return base64.b64encode((4).to_bytes(4, "little") + bytes(4) + b"x" * longest + b"\0").decode()


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*normalizers: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(normalizers)}}


def template(times: int) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": [TEXT] * times, "pair": [TEXT], "special_tokens": {}}


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({}, id="nothing"),
        pytest.param(sequence(*[replace(LETTERS, '"')] * 20, replace(EXPRESSION, " ")), id="albert"),
        pytest.param(sequence({"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁")), id="llama"),
        pytest.param(sequence({"type": "Precompiled", "precompiled_charsmap": charsmap(60)}), id="xlm_roberta"),
        pytest.param({"post_processor": template(1)}, id="template"),
        pytest.param({"model": BPE}, id="bpe"),
        pytest.param({"model": {**BPE, "dropout": 0.0}}, id="dropout_of_nothing"),
    ],
)
def test_parts_of_published_tokenizers_pass(parts: dict[str, Any]) -> None:
    check_tokenizer(json.dumps(parts).encode())


EIGHT = replace(EXPRESSION, "x" * 8)
GROWTH = "the normalizers can make {} characters of one, at most 64 are taken"


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (sequence(replace(EXPRESSION, "x" * 64)), GROWTH.format(65)),
        (sequence(*[replace({"String": ""}, "x")] * 7), GROWTH.format(128)),
        (sequence(replace({"String": "xy"}, "x" * 131)), GROWTH.format(66)),
        (
            sequence(sequence(replace(EXPRESSION, "x" * 8))["normalizer"], replace(EXPRESSION, "x" * 8)),
            GROWTH.format(81),
        ),
        (sequence({"type": "Prepend", "prepend": "x" * 64 * 64}), GROWTH.format(65)),
        (sequence({"precompiled_charsmap": charsmap(65 * 64)}), GROWTH.format(65)),
        ({"post_processor": template(2)}, "the template of the post_processor has the text 2 times"),
        (
            {"post_processor": {"processors": [template(1000)]}},
            "the template of the post_processor has the text 1000 times",
        ),
        ({"model": {**BPE, "dropout": 0.1}}, "model.dropout is 0.1, with which a text has other tokens each time"),
        (
            {"model": {**BPE, "end_of_word_suffix": "x" * 65}},
            "model.end_of_word_suffix has 65 characters, at most 64 are taken",
        ),
        ({"model": {"max_input_chars_per_word": 2**63}}, "model.max_input_chars_per_word is above 10000"),
    ],
)
def test_parts_that_attack_are_refused(parts: dict[str, Any], problem: str) -> None:
    with pytest.raises(PackError) as caught:
        check_tokenizer(json.dumps(parts).encode())
    assert str(caught.value) == f"tokenizer.json: {problem}; use another tokenizer"


def test_dropout_is_found_when_a_tokenizer_is_opened(tiny: Path) -> None:
    content = {**json.loads((tiny / "tokenizer.json").read_bytes()), "model": {**BPE, "dropout": 0.5}}
    with pytest.raises(PackError, match=r"model\.dropout is 0\.5"):
        TextTokenizer(json.dumps(content).encode(), 32)
