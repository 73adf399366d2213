"""Token ids: the model's special tokens around a text, none from the text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from embedpack import CapacityError, Embedder, InputError, PackError
from embedpack.inputs import long_texts
from embedpack.inputs import tokenizer as tokenizer_module
from embedpack.inputs.long_texts import LimitedEncoder
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.inputs.tokens import Tokens

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
    # The prompt is the model's own: its special tokens are parsed.
    of_prompt = [SEP] if "[SEP]" in prompt else []
    assert [token for token in inside if token in (PAD, CLS, SEP)] == of_prompt == list(inside[: len(of_prompt)])


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_token_in_a_text_is_its_characters(tokenizer: TextTokenizer, token: str) -> None:
    (as_token,) = tokenizer.encode([f"cat{token}cat"], "")
    (as_pieces,) = tokenizer.encode([f"cat [ {token[1:-1]} ] cat"], "")
    assert as_token.ids.tolist() == as_pieces.ids.tolist()


@given(words=st.integers(1, 60), limit=st.integers(3, 40))
def test_a_text_may_lose_its_beginning(tiny: Path, words: int, limit: int) -> None:
    content = json.loads((tiny / "tokenizer.json").read_bytes())
    content["truncation"] = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 2}
    left = TextTokenizer(json.dumps(content).encode(), max_tokens=limit)
    whole = TextTokenizer((tiny / "tokenizer.json").read_bytes(), max_tokens=4096)
    text = " ".join(["cat", "roof", "rain"][number % 3] for number in range(words))
    (found,), (expected,) = left.encode([text], "a "), whole.encode([text], "a ")
    _, *inside, _ = expected.ids.tolist()
    assert found.ids.tolist() == [CLS, *inside[-(limit - 2) :], SEP]
    assert found.truncated == (len(inside) > limit - 2)


def test_the_largest_id_leaves_out_special_tokens_that_no_text_gets(tiny: Path) -> None:
    content = json.loads((tiny / "tokenizer.json").read_bytes())
    count = len(content["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    surplus = [{"id": count, "content": "[A]", "special": False}, {"id": count + 1, "content": "[B]", "special": True}]
    content["added_tokens"] += [{**flags, **token} for token in surplus]
    assert TextTokenizer(json.dumps(content).encode(), 32).largest_id == count


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
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 2}
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


SENTENCES = [
    "how do i reset the router in the kitchen?",
    "a cat sleeps on the warm roof; 3.14 and 42",
    "naïve café 東京",
]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
WORDS = st.sampled_from(
    [
        "cat",
        "the ",
        " router",
        "kitchen.",
        "  ",
        "\n\n",
        "\r\n ",
        "é",
        "e\u0301",
        "東京",
        "。",
        "\u200b",
        "42",
        "[SEP]",
        "▁",
        "'s ",
    ]
)


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def sentencepiece(*, words: bool = True) -> Tokenizer:
    """Unigram as of XLM-RoBERTa; without `words` it has no pre-tokenizer, so that the whole text is one word."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(vocab_size=80, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]),
    )
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    if not words:
        made.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return made


@pytest.fixture(scope="session")
def by_kind(tiny: Path) -> dict[str, bytes]:
    return {
        "wordpiece": (tiny / "tokenizer.json").read_bytes(),
        "byte-level": byte_level().to_str().encode(),
        "unigram": sentencepiece().to_str().encode(),
        "unigram, one word": sentencepiece(words=False).to_str().encode(),
    }


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram", "unigram, one word"])
@given(pieces=st.lists(WORDS, max_size=150), limit=st.integers(4, 24))
def test_part_of_a_long_text_has_the_tokens_of_the_whole(
    by_kind: dict[str, bytes], kind: str, pieces: list[str], limit: int
) -> None:
    text = " ".join(pieces)
    whole = Tokenizer.from_str(by_kind[kind].decode())
    whole.encode_special_tokens = True
    whole.no_padding()
    whole.enable_truncation(limit)
    expected = whole.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "MARGIN", 24)
        patch.setattr(long_texts, "CHARACTERS_PER_TOKEN", 1)
        patch.setattr(long_texts, "GROWTH", 2)
        (tokens,) = TextTokenizer(by_kind[kind], limit).encode([text], "")
    assert tokens.ids.tolist() == expected.ids
    assert tokens.special.tolist() == [bool(special) for special in expected.special_tokens_mask]
    assert tokens.truncated == bool(expected.overflowing)


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram"])
def test_only_the_first_characters_of_a_long_text_are_tokenized(
    by_kind: dict[str, bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    encode = LimitedEncoder._encode

    def spy(encoder: LimitedEncoder, text: str, number: int) -> Tokens:
        lengths.append(len(text))
        return encode(encoder, text, number)

    monkeypatch.setattr(LimitedEncoder, "_encode", spy)
    long = "how do i reset the router in the kitchen? " * 400_000
    short, tokens = TextTokenizer(by_kind[kind], 256).encode([long[:4000], long], "query: ")
    assert lengths == [256 * 8 + 4096]
    assert tokens.ids.tolist() == short.ids.tolist()
    assert len(tokens.ids) == 256
    assert tokens.truncated


def test_leading_spaces_are_passed_by(tokenizer: TextTokenizer) -> None:
    (padded,), (plain,) = tokenizer.encode([" " * 100_000 + "cat " * 90], ""), tokenizer.encode(["cat " * 90], "")
    assert padded.ids.tolist() == plain.ids.tolist()
    assert padded.truncated


@pytest.mark.parametrize("filler", [" ", "a", "\u200b"])
def test_long_runs_without_tokens_are_refused(tokenizer: TextTokenizer, filler: str) -> None:
    with pytest.raises(InputError, match="text 5 has 3000004 characters, but at most 32 tokens in the first 2000000; "):
        tokenizer.encode(["cat " + filler * 3_000_000], "", [5])


def test_groups_do_not_change_tokens(tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"cat {number} " * (number % 7 + 1) for number in range(50)]
    expected = [tokens.ids.tolist() for tokens in tokenizer.encode(texts, "")]
    monkeypatch.setattr(long_texts, "GROUP_CHARACTERS", 40)
    assert [tokens.ids.tolist() for tokens in tokenizer.encode(texts, "")] == expected
    assert tokenizer.encode([], "") == []


def test_text_that_does_not_fit_the_memory(tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.host.memory.available_memory", lambda root: 1_000_000)
    with pytest.raises(CapacityError, match="text 3: tokenizing 4352 characters needs about 2 MB of memory"):
        tokenizer.encode(["cat", "cat " * 5000], "", [2, 3])


class PanicException(BaseException):
    """Exception of the same name and base as the one that pyo3 raises."""


class Panicking:
    """A tokenizer that panics at texts with an "x"."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode_batch(self, texts: list[str]) -> list[object]:
        if any("x" in text for text in texts):
            raise PanicException("slice index out of range")
        return list(self.tokenizer.encode_batch(texts))

    def get_added_tokens_decoder(self) -> object:
        return self.tokenizer.get_added_tokens_decoder()


def test_panic_names_its_text(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer((tiny / "tokenizer.json").read_bytes(), max_tokens=32)
    monkeypatch.setattr(tokenizer, "_tokenizer", Panicking(tokenizer._tokenizer))
    with pytest.raises(InputError, match="text 8 fails in the tokenizer at its 3 characters: slice index out of range"):
        tokenizer.encode(["cat", "box", "dog"], "", [7, 8, 9])
    with pytest.raises(InputError, match="text 1 fails in the tokenizer"):
        tokenizer.encode(["cat", "box" * 5000], "")


def test_interrupts_pass(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer((tiny / "tokenizer.json").read_bytes(), max_tokens=32)

    def interrupt(texts: list[str]) -> None:
        raise KeyboardInterrupt

    panicking = Panicking(tokenizer._tokenizer)
    monkeypatch.setattr(panicking, "encode_batch", interrupt)
    monkeypatch.setattr(tokenizer, "_tokenizer", panicking)
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode(["cat"], "")


def test_panic_at_loading_is_an_error_of_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(content: str) -> None:
        raise PanicException("unwrap on a None value")

    monkeypatch.setattr(tokenizer_module, "Tokenizer", type("Tokenizer", (), {"from_str": staticmethod(panic)}))
    with pytest.raises(PackError, match="unwrap on a None value; copy it again"):
        TextTokenizer(b"{}", max_tokens=32)


def test_text_without_any_token_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(tiny, threads=1)
    content = json.loads((tiny / "tokenizer.json").read_bytes()) | {"post_processor": None}
    bare = TextTokenizer(json.dumps(content).encode(), max_tokens=32)
    processor = dataclasses.replace(embedder._encoder.processor, tokenizer=bare)
    monkeypatch.setattr(embedder._encoder, "processor", processor)
    with pytest.raises(InputError, match=r"^text 1 has no token: the tokenizer drops all of its 2 characters; "):
        embedder.encode(["a cat", "\u200b\u200b"])
    assert len(embedder.encode(["a cat", "a dog"])) == 2
