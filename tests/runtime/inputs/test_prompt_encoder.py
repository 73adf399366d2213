"""Special tokens: parsed in a prompt, as a plain tokenizer parses them; characters in a text."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding

from embedpack.inputs.prompt_encoder import PromptEncoder
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.inputs.tokens import Tokens
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, places

PIECES = ("cat", "Roof", " ", "  ", "\n", "<", "|", ">", "im_start", "[", "Q", "]", "é", ".", "/s")
LIMIT = 40
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
HOSTILE = st.lists(st.sampled_from([*PIECES, *SPECIALS]), max_size=8).map("".join)
PROMPTS = st.lists(st.sampled_from([*SPECIALS, "query", ": ", " ", "\n", "[", "<|"]), max_size=5).map("".join)


def parsed(kind: str, whole: str) -> Encoding:
    """A text cut by the library itself, special tokens parsed."""
    tokenizer = copy.deepcopy(TOKENIZERS[kind])
    tokenizer.enable_truncation(LIMIT)
    return tokenizer.encode(whole)


def encode(kind: str, prompt: str, texts: list[str]) -> list[Tokens]:
    protecting = copy.deepcopy(TOKENIZERS[kind])
    protecting.encode_special_tokens = True
    found = PromptEncoder(protecting, lambda: TOKENIZERS[kind], prompt).encode_batch(
        [prompt + text for text in texts], offsets=True
    )
    return [tokens.cut(LIMIT, "right") for tokens in found]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=PROMPTS, text=TEXTS)
def test_tokens_are_those_of_a_tokenizer_that_parses_everything(kind: str, prompt: str, text: str) -> None:
    whole = prompt + text
    if any(whole.count(token) != prompt.count(token) for token in SPECIALS):
        return  # spelled by prompt and text together
    (found,), expected = encode(kind, prompt, [text]), parsed(kind, whole)
    assert found.ids.tolist() == expected.ids
    assert places(found) == [list(pair) for pair in expected.offsets]
    assert found.special.tolist() == [bool(special) for special in expected.special_tokens_mask]
    assert found.truncated == bool(expected.overflowing)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=PROMPTS, text=HOSTILE)
def test_a_text_has_no_special_tokens(kind: str, prompt: str, text: str) -> None:
    (found,) = encode(kind, prompt, [text])
    specials = {TOKENIZERS[kind].token_to_id(token) for token in SPECIALS}
    of_prompt = [token for token in TOKENIZERS[kind].encode(prompt).ids if token in specials]
    assert [token for token in found.ids if token in specials] == of_prompt


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=HOSTILE)
def test_places_in_a_text_that_spells_special_tokens(kind: str, text: str) -> None:
    """A special token in the prompt moves the places by its length, whether the text spells any or not."""
    (plain,), (behind,) = encode(kind, "", ["cat " + text]), encode(kind, "[Q]", ["cat " + text])
    expected = [[start + 3, end + 3] for start, end in places(plain)[:-1]]
    assert places(behind) == [[0, 3], *expected, [0, 0]][:LIMIT]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=PROMPTS, texts=st.lists(HOSTILE, min_size=1, max_size=4))
def test_a_batch_is_its_texts(kind: str, prompt: str, texts: list[str]) -> None:
    alone = [encode(kind, prompt, [text])[0].ids.tolist() for text in texts]
    assert [found.ids.tolist() for found in encode(kind, prompt, texts)] == alone


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_long_text_after_special_tokens_is_cut_at_the_limit(kind: str) -> None:
    for text in ("cat " * 60, "cat </s> " * 60):
        (found,) = encode(kind, "[Q]", [text])
        assert len(found.ids) == LIMIT
        assert found.truncated
        assert (found.ids[0], found.ids[-1]) == tuple(TOKENIZERS[kind].token_to_id(token) for token in ("[Q]", "</s>"))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("part", ["cat Roof. ", "cat </s> Roof "])
def test_a_text_of_megabytes_is_read_as_its_beginning(kind: str, part: str) -> None:
    content = TOKENIZERS[kind].to_str().encode()
    tokenizer = TextTokenizer(content, 40)
    long, short = tokenizer.encode([part * 200_000, part * 300], "[Q] find ")
    assert long.ids.tolist() == short.ids.tolist()
    assert (len(long.ids), long.truncated, short.truncated) == (40, True, True)


def test_prompts_share_the_tokenizer_that_parses_special_tokens() -> None:
    tokenizer = TextTokenizer(TOKENIZERS["unigram"].to_str().encode(), LIMIT)
    tokenizer.encode(["cat"], "[Q]")
    parsing = tokenizer._parsing
    tokenizer.encode(["cat"], "</s>")
    assert tokenizer._encoder("</s>")._parsing is tokenizer._encoder("[Q]")._parsing is parsing
    assert tokenizer._encoder("find")._parsing is None
