"""Templates: texts are joined before they are tokenized, and special tokens in slots are characters."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.inputs.templates import fill, join, tokenize
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.templates import IdsPart, Part, SlotPart, TextPart
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, special_id

LIMIT = 1000
SPELLED = st.lists(st.sampled_from(["cat", " ", "ca", "t", "i", "m", *SPECIALS, "<", "|"]), max_size=6).map("".join)
PARTS = st.lists(
    st.one_of(
        SPELLED.map(TextPart),
        st.sampled_from(SPECIALS),
        st.sampled_from([SlotPart("query"), SlotPart("document")]),
    ),
    max_size=6,
)
BY_KIND = {kind: TextTokenizer(made.to_str().encode(), LIMIT) for kind, made in TOKENIZERS.items()}


def with_ids(kind: str, drawn: list[Part | str]) -> tuple[Part, ...]:
    """Parts with the ids of special tokens in place of their spelling."""
    return tuple(IdsPart((special_id(kind, part),)) if isinstance(part, str) else part for part in drawn)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(drawn=PARTS, query=SPELLED, document=SPELLED)
def test_only_ids_of_the_template_are_special(kind: str, drawn: list[Part | str], query: str, document: str) -> None:
    parts = with_ids(kind, drawn)
    found = tokenize(BY_KIND[kind], fill(parts, {"query": query, "document": document}), LIMIT)
    specials = {TOKENIZERS[kind].token_to_id(token) for token in SPECIALS}
    expected = [number for part in parts if isinstance(part, IdsPart) for number in part.ids]
    assert [number for ids in found for number in ids.tolist() if number in specials] == expected


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(drawn=PARTS, query=st.sampled_from(["cat", "ca", "t Roof", "im"]), document=st.sampled_from([" cat", "t", "\n"]))
def test_ids_are_those_of_the_whole_text(kind: str, drawn: list[Part | str], query: str, document: str) -> None:
    """A tokenizer that parses special tokens in the whole text, where none is spelled by a text."""
    values = {"query": query, "document": document}
    plain = [part for part in drawn if not isinstance(part, TextPart) or not any(s in part.text for s in SPECIALS)]
    text = "".join(
        part if isinstance(part, str) else part.text if isinstance(part, TextPart) else values[part.slot]
        for part in plain
        if not isinstance(part, IdsPart)
    )
    if sum(text.count(token) for token in SPECIALS) != sum(isinstance(part, str) for part in plain):
        return  # spelled by two texts together
    found = tokenize(BY_KIND[kind], fill(with_ids(kind, plain), {"query": query, "document": document}), LIMIT)
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
    assert [number for ids in found for number in ids.tolist()] == expected


def test_characters_are_merged_over_the_border_of_a_slot() -> None:
    parts = (TextPart("ca"), SlotPart("query"), IdsPart((7,)), SlotPart("document"))
    pieces = fill(parts, {"query": "t", "document": ""})
    assert pieces == ["cat", (7,)]
    (ids, _) = tokenize(BY_KIND["byte level"], pieces, LIMIT)
    assert ids.tolist() == [TOKENIZERS["byte level"].token_to_id("cat")]


def test_templates_are_joined_to_a_list() -> None:
    document = (TextPart("<passage>"), SlotPart("document"), IdsPart((5,)), TextPart("</passage>"))
    pieces = join([*fill(document, {"document": "a"}), "\n", *fill(document, {"document": "b"}), (1,), (2, 3), ""])
    assert pieces == ["<passage>a", (5,), "</passage>\n<passage>b", (5,), "</passage>", (1, 2, 3)]


def test_a_slot_without_a_text() -> None:
    with pytest.raises(KeyError, match="query"):
        fill((SlotPart("query"),), {"document": "a"})


def test_parts_in_json() -> None:
    parts = (TextPart("a"), IdsPart((1, 2)), SlotPart("query"))
    assert msgspec.json.decode(msgspec.json.encode(parts), type=tuple[Part, ...]) == parts
    for wrong in (
        b'[{"type":"slot","slot":"title"}]',
        b'[{"type":"ids","ids":[-1]}]',
        b'[{"type":"text","text":"a","x":1}]',
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(wrong, type=tuple[Part, ...])
