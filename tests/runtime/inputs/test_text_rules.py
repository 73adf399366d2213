"""Rules of every text: white space around it, ids behind it, a limit of the call, places, decoding."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import PackError
from embedpack.inputs.tokenizer import TextRules, TextTokenizer
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, places, special_id

SPACES = st.sampled_from(["", " ", "\n", " \t "])
INNER = st.lists(st.sampled_from(["cat", " ", "Roof.", "é", *SPECIALS]), max_size=9).map(lambda t: f"a{''.join(t)}b")
PROMPTS = st.sampled_from(["", "query: ", "[Q]", "[Q] find", "ca"])


@functools.cache
def opened(kind: str, rules: TextRules | None = None, limit: int = 100) -> TextTokenizer:
    return TextTokenizer(TOKENIZERS[kind].to_str().encode(), limit, rules)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=PROMPTS, before=SPACES, text=INNER, behind=SPACES)
def test_white_space_around_a_text_is_taken_off(kind: str, prompt: str, before: str, text: str, behind: str) -> None:
    (found,) = opened(kind, TextRules(strip=True)).encode([before + text + behind], prompt, offsets=True)
    (expected,) = opened(kind).encode([text], prompt, offsets=True)
    assert found.ids.tolist() == expected.ids.tolist()
    # Places count from the beginning of the text as the caller has it.
    moved = [[a + len(before), b + len(before)] if b else [0, 0] for a, b in places(expected)]
    assert places(found) == moved


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=PROMPTS, text=INNER)
def test_places_in_a_text_do_not_depend_on_its_prompt(kind: str, prompt: str, text: str) -> None:
    (found,), (whole,) = (
        opened(kind).encode([text], prompt, offsets=True),
        opened(kind).encode([text], "", offsets=True),
    )
    of_text = [tuple(pair) for pair in places(found) if pair[1] > 0]
    assert all(0 <= start < end <= len(text) for start, end in of_text)
    # Characters at the border to a prompt may belong to one token with those of the prompt.
    expected = [tuple(pair) for pair in places(whole) if pair[0] > 1]
    assert [pair for pair in of_text if pair[0] > 1] == expected


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=INNER.map(lambda text: text * 3), limit=st.integers(4, 60), after=st.sampled_from([(), (3,), (3, 1)]))
def test_ids_behind_a_text_are_placed_after_the_cut(kind: str, text: str, limit: int, after: tuple[int, ...]) -> None:
    (found,) = opened(kind, TextRules(after=after)).encode([text], "", max_tokens=limit, offsets=True)
    (expected,) = opened(kind).encode([text], "", max_tokens=limit - len(after))
    assert found.ids.tolist() == [*expected.ids.tolist(), *after]
    assert found.special.tolist() == [*expected.special.tolist(), *[True] * len(after)]
    assert places(found)[len(expected.ids) :] == [[0, 0]] * len(after)
    assert found.truncated == expected.truncated


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=INNER.map(lambda text: text * 3), limit=st.integers(2, 60))
def test_a_limit_of_the_call_is_that_of_a_tokenizer(kind: str, text: str, limit: int) -> None:
    (found,) = opened(kind).encode([text], "", max_tokens=limit)
    (expected,) = opened(kind, limit=limit).encode([text], "")
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.truncated == expected.truncated
    (beyond,) = opened(kind, limit=limit).encode([text], "", max_tokens=1000)
    assert beyond.ids.tolist() == expected.ids.tolist()


def test_ids_behind_a_text_need_room() -> None:
    with pytest.raises(PackError, match="max_tokens is 3, but the tokenizer adds 3 special tokens to a text"):
        opened("word piece", TextRules(after=(1, 2)), 3)


@given(text=st.text(max_size=40))
def test_decoding_gives_the_text(text: str) -> None:
    (tokens,) = opened("byte level", limit=1000).encode_pieces([text], 1000)
    assert opened("byte level").decode(tokens.ids.tolist()) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_decoding_keeps_special_tokens(kind: str) -> None:
    (tokens,) = opened(kind).encode(["cat"], "[Q]")
    assert tokens.ids.tolist()[0] == special_id(kind, "[Q]")
    decoded = opened(kind).decode(tokens.ids.tolist())
    assert decoded.startswith("[Q]")
    assert decoded.endswith("</s>")
