"""Templates: texts are joined before they are tokenized, and special tokens in slots are characters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.inputs.templates import fill, join, shortened, tokenize
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.score_recipes import Slot, Template
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, special_id

LIMIT = 1000
SPELLED = st.lists(st.sampled_from(["cat", " ", "ca", "t", "i", "m", *SPECIALS, "<", "|"]), max_size=6).map("".join)
QUERY, DOCUMENT = Slot(slot="query"), Slot(slot="document")


@dataclass(frozen=True)
class Special:
    """A special token of a template, whose id depends on the tokenizer."""

    token: str


Drawn = list[str | Special | Slot]
PARTS = st.lists(
    st.one_of(SPELLED, st.sampled_from(SPECIALS).map(Special), st.sampled_from([QUERY, DOCUMENT])), max_size=6
)
BY_KIND = {kind: TextTokenizer(made.to_str().encode(), LIMIT) for kind, made in TOKENIZERS.items()}


def with_ids(kind: str, drawn: Drawn) -> Template:
    """Parts with the ids of special tokens."""
    return tuple((special_id(kind, part.token),) if isinstance(part, Special) else part for part in drawn)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(drawn=PARTS, query=SPELLED, document=SPELLED)
def test_only_ids_of_the_template_are_special(kind: str, drawn: Drawn, query: str, document: str) -> None:
    parts = with_ids(kind, drawn)
    found = tokenize(BY_KIND[kind], fill(parts, {"query": query, "document": document}), LIMIT)
    specials = {special_id(kind, token) for token in SPECIALS}
    expected = [number for part in parts if isinstance(part, tuple) for number in part]
    assert [number for ids in found for number in ids.tolist() if number in specials] == expected


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(drawn=PARTS, query=st.sampled_from(["cat", "ca", "t Roof", "im"]), document=st.sampled_from([" cat", "t", "\n"]))
def test_ids_are_those_of_the_whole_text(kind: str, drawn: Drawn, query: str, document: str) -> None:
    """A tokenizer that parses special tokens in the whole text, where none is spelled by a text."""
    values = {"query": query, "document": document}
    plain = [part for part in drawn if not isinstance(part, str) or not any(token in part for token in SPECIALS)]
    text = "".join(
        part.token if isinstance(part, Special) else values[part.slot] if isinstance(part, Slot) else part
        for part in plain
    )
    if sum(text.count(token) for token in SPECIALS) != sum(isinstance(part, Special) for part in plain):
        return  # spelled by two texts together
    found = tokenize(BY_KIND[kind], fill(with_ids(kind, plain), values), LIMIT)
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
    assert [number for ids in found for number in ids.tolist()] == expected


def test_characters_are_merged_over_the_border_of_a_slot() -> None:
    parts = ("ca", QUERY, (7,), DOCUMENT)
    pieces = fill(parts, {"query": "t", "document": ""})
    assert pieces == ["cat", (7,)]
    (ids, _) = tokenize(BY_KIND["byte level"], pieces, LIMIT)
    assert ids.tolist() == [TOKENIZERS["byte level"].token_to_id("cat")]


def test_templates_are_joined_to_a_list() -> None:
    document = ("<passage>", DOCUMENT, (5,), "</passage>")
    pieces = join([*fill(document, {"document": "a"}), "\n", *fill(document, {"document": "b"}), (1,), (2, 3), ""])
    assert pieces == ["<passage>a", (5,), "</passage>\n<passage>b", (5,), "</passage>", (1, 2, 3)]


def test_a_slot_without_a_text() -> None:
    with pytest.raises(KeyError, match="query"):
        fill((QUERY,), {"document": "a"})


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=SPELLED, limit=st.integers(1, 12))
def test_a_text_is_shortened_to_its_first_tokens(kind: str, text: str, limit: int) -> None:
    (tokens,) = tokenize(BY_KIND[kind], [text], LIMIT) if text else [np.zeros(0, np.int64)]
    found = shortened(BY_KIND[kind], text, limit)
    assert found == (text if len(tokens) <= limit else BY_KIND[kind].decode(tokens[:limit].tolist()))
    assert shortened(BY_KIND[kind], text, None) == text
