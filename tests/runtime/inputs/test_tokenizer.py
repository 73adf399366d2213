"""Token ids: the model's special tokens around a text, and none out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import CapacityError
from embedpack.inputs.tokenizer import TextTokenizer

PAD, UNK, CLS, SEP = range(4)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PIECES = st.sampled_from([*SPECIAL_TOKENS, "cat", " ", "[", "SEP", "]", "##a", "é", "\u200b"])


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> TextTokenizer:
    return TextTokenizer((tiny / "tokenizer.json").read_bytes(), max_tokens=32)


def test_special_tokens_are_those_of_the_tiny_pack(tiny: Path) -> None:
    vocabulary = json.loads((tiny / "tokenizer.json").read_bytes())["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [PAD, UNK, CLS, SEP]


def test_a_full_memory_is_no_fault_of_the_file(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullMemory:
        @staticmethod
        def from_str(text: str) -> None:
            raise MemoryError

    monkeypatch.setattr("embedpack.inputs.tokenizer.Tokenizer", FullMemory)
    with pytest.raises(CapacityError, match=r"tokenizer\.json: does not fit the memory; free some"):
        TextTokenizer((tiny / "tokenizer.json").read_bytes(), max_tokens=32)


@given(text=st.lists(PIECES).map("".join), prompt=st.sampled_from(["", "query: ", "[SEP] "]))
def test_special_tokens_stand_at_the_ends_only(tokenizer: TextTokenizer, text: str, prompt: str) -> None:
    (tokens,) = tokenizer.encode([text + "."], prompt)
    first, *inside, last = tokens.ids
    assert (first, last) == (CLS, SEP)
    assert not {PAD, CLS, SEP} & set(inside)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_token_in_a_text_is_its_characters(tokenizer: TextTokenizer, token: str) -> None:
    (as_token,) = tokenizer.encode([f"cat{token}cat"], "")
    (as_pieces,) = tokenizer.encode([f"cat [ {token[1:-1]} ] cat"], "")
    assert as_token.ids.tolist() == as_pieces.ids.tolist()


def test_prompt_is_part_of_the_text(tokenizer: TextTokenizer) -> None:
    (with_prompt,), (typed,) = tokenizer.encode(["cat"], "query: "), tokenizer.encode(["query: cat"], "")
    assert with_prompt.ids.tolist() == typed.ids.tolist()


@given(words=st.integers(1, 60))
def test_long_texts_lose_their_end_and_say_so(tokenizer: TextTokenizer, words: int) -> None:
    (tokens,) = tokenizer.encode(["cat " * words], "")
    assert len(tokens.ids) == min(words + 2, 32)
    assert tokens.truncated == (words > 30)
    assert tokens.ids[-1] == SEP


def test_padding_and_truncation_of_the_file_do_not_count(tiny: Path, tokenizer: TextTokenizer) -> None:
    content = json.loads((tiny / "tokenizer.json").read_bytes())
    content["truncation"] = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 2}
    content["padding"] = {
        "strategy": {"Fixed": 20},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": PAD,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    other = TextTokenizer(json.dumps(content).encode(), max_tokens=32)
    texts = ["cat", "how do i reset the router", "a cat " * 40 + "sleeps"]
    for found, expected in zip(other.encode(texts, ""), tokenizer.encode(texts, ""), strict=True):
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.truncated == expected.truncated


@pytest.mark.parametrize("surplus", [0, 1, 99_999])
def test_largest_id_is_that_of_the_vocabulary(tiny: Path, surplus: int) -> None:
    content = json.loads((tiny / "tokenizer.json").read_bytes())
    vocabulary = content["model"]["vocab"]
    if surplus:
        vocabulary["surplus"] = max(vocabulary.values()) + surplus
    assert TextTokenizer(json.dumps(content).encode(), max_tokens=32).largest_id == max(vocabulary.values())
