"""Lists of documents to token ids: templates, marks, limits and blocks."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import InputError, PackError
from embedpack.errors import ItemError
from embedpack.inputs.batching import mark_index
from embedpack.inputs.lists import ListEncoder, ListTokens, without_marks
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.score_recipes import ListScores, Slot
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, special_id

START, END, MARK, TURN = SPECIALS
QUERY, DOCUMENT, COUNT, INDEX = (Slot(slot=name) for name in ("query", "document", "count", "index"))
TEXTS = st.lists(st.sampled_from(["cat ", "Roof", ".", "é", "query"]), min_size=1, max_size=12).map("".join)
HOSTILE = st.lists(st.sampled_from(["cat", " ", "<", *SPECIALS]), max_size=12).map("".join)


@functools.cache
def opened(kind: str) -> TextTokenizer:
    return TextTokenizer(TOKENIZERS[kind].to_str().encode(), 1000)


def recipe(kind: str, **fields: object) -> ListScores:
    marks = {token: special_id(kind, token) for token in SPECIALS}
    made = ListScores(
        before=((marks[START],), "rank ", COUNT, " for ", QUERY, (marks[TURN],), "\n"),
        document=("passage ", INDEX, ": ", DOCUMENT, (marks[MARK],), " end"),
        between="\n",
        after=("\nquery: ", QUERY, (marks[TURN],), " done", (marks[END],)),
        document_mark=marks[MARK],
        query_mark=marks[TURN],
        stripped=(MARK, TURN),
        max_query_tokens=8,
        max_document_tokens=16,
        max_tokens=64,
        max_documents=5,
    )
    return msgspec.structs.replace(made, **fields)


def encoded(kind: str, query: str, documents: list[str], **fields: object) -> ListTokens:
    return ListEncoder(opened(kind), recipe(kind, **fields)).encode(query, documents)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=4))
def test_a_block_is_the_tokenized_prompt(kind: str, query: str, documents: list[str]) -> None:
    limits = {"max_query_tokens": 500, "max_document_tokens": 500, "max_tokens": 100_000}
    (block,) = encoded(kind, query, documents, **limits).blocks
    passages = "\n".join(f"passage {row}: {text}{MARK} end" for row, text in enumerate(documents))
    whole = f"{START}rank {len(documents)} for {query}{TURN}\n{passages}\nquery: {query}{TURN} done{END}"
    expected = TOKENIZERS[kind].encode(whole, add_special_tokens=False).ids
    assert block.ids.tolist() == expected
    places = [np.flatnonzero(block.ids == special_id(kind, token)) for token in (MARK, TURN)]
    assert block.marks.tolist() == [*places[0], places[1][-1]]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(parts=st.lists(HOSTILE, min_size=1, max_size=3))
def test_marks_that_texts_spell_change_nothing(kind: str, parts: list[str]) -> None:
    texts = [f"cat{text}" for text in parts]
    (forged,) = encoded(kind, texts[0], texts, max_query_tokens=500, max_document_tokens=500, max_tokens=9000).blocks
    counts = [np.count_nonzero(forged.ids == special_id(kind, token)) for token in SPECIALS]
    # A word that is split otherwise has other ids, and never a special one.
    assert counts == [1, 1, len(texts), 2]
    assert len(forged.marks) == len(texts) + 1


@given(st.lists(st.sampled_from(["<a>", "<b>", "<", "a", ">", "b"]), max_size=30).map("".join))
def test_no_mark_is_left(text: str) -> None:
    found = without_marks(text, ("<a>", "<b>"))
    assert "<a>" not in found
    assert "<b>" not in found
    assert found == text or "<a>" in text or "<b>" in text


def test_marks_within_marks_take_no_time() -> None:
    text = "<a" * 100_000 + "x" + ">" * 100_000
    assert without_marks(text, ("<a>",)) == text
    assert without_marks("<a" * 100_000 + ">" * 100_000, ("<a>",)) == ""


@given(
    query=st.integers(1, 8), lengths=st.lists(st.integers(1, 16), min_size=1, max_size=40), room=st.integers(16, 200)
)
def test_blocks_end_by_number_or_room(query: int, lengths: list[int], room: int) -> None:
    encoder = ListEncoder(opened("byte level"), recipe("byte level", max_tokens=room))
    blocks, block, left = list[list[int]](), list[int](), room - 2 * query
    for row, tokens in enumerate(lengths):
        block.append(row)
        left -= tokens
        if len(block) >= 5 or left <= 16:
            blocks, block, left = [*blocks, block], [], room - 2 * query
    assert [list(rows) for rows in encoder._blocks(query, lengths)] == [*blocks, *([block] if block else [])]


def test_ten_thousand_documents_are_blocks_of_the_largest_number() -> None:
    encoder = ListEncoder(opened("byte level"), recipe("byte level", max_tokens=100_000, max_documents=125))
    blocks = list(encoder._blocks(3, [4] * 10_000))
    assert [len(rows) for rows in blocks] == [125] * 80
    assert [rows.start for rows in blocks] == list(range(0, 10_000, 125))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_over_their_limits_are_cut_and_named(kind: str) -> None:
    found = encoded(kind, "cat " * 50, ["cat", "cat " * 50, "roof"], max_tokens=1000)
    assert (found.cut, found.query_cut) == ([1], True)
    exact = encoded(kind, "cat", ["cat", "cat"])
    assert (exact.cut, exact.query_cut) == ([], False)


def test_a_text_that_is_cut_is_that_of_its_first_tokens() -> None:
    """Limits of 8 and 16 tokens; "cat" is one, " cat" are two."""
    (cut,) = encoded("byte level", "cat" + " cat" * 50, ["cat" + " cat" * 50], max_tokens=1000).blocks
    (short,) = encoded("byte level", "cat cat cat cat ", ["cat" + " cat" * 7 + " "], max_tokens=1000).blocks
    assert cut.ids.tolist() == short.ids.tolist()


def test_texts_of_marks_alone() -> None:
    with pytest.raises(ItemError, match=r"^document 7 is empty without the marks of the model that it spells; pass "):
        ListEncoder(opened("byte level"), recipe("byte level")).encode("cat", ["cat", f" {MARK}{TURN}"], 6)
    with pytest.raises(InputError, match=r"^the query is empty without the marks of the model that it spells; pass "):
        encoded("byte level", MARK, ["cat"])


def test_a_tokenizer_that_cannot_follow_the_templates() -> None:
    content = TOKENIZERS["unigram"].to_str().replace('"prepend_scheme":"always"', '"prepend_scheme":"first"')
    with pytest.raises(PackError, match="the tokenizer puts a space before the first word alone, and text follows ids"):
        ListEncoder(TextTokenizer(content.encode(), 100), recipe("unigram"))


def test_rows_with_fewer_marks_repeat_their_last() -> None:
    found = mark_index([np.array([1, 4]), None, np.array([0, 2, 3])], [6, 3, 5])
    assert found.tolist() == [[0, 1], [0, 4], [0, 4], [1, 2], [1, 2], [1, 2], [2, 0], [2, 2], [2, 3]]
