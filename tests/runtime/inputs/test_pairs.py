"""Pairs of a query and a document: token ids, token types and cuts are those of the tokenizers library."""

from __future__ import annotations

import copy
import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from embedpack import InputError, PackError
from embedpack.inputs.pairs import DOCUMENT, QUERY, PairEncoder, PairTokens
from embedpack.inputs.templates import shortened
from embedpack.inputs.tokenizer import TextRules, TextTokenizer
from embedpack.pack.score_recipes import PairScores, Slot, Template
from tests.helpers.pairs import Cut, pair_scores
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, special_id

START, END, MARK, TURN = SPECIALS
TEXTS = st.lists(st.sampled_from(["cat ", "Roof", " ", ".", "é", "query"]), min_size=1, max_size=30).map("".join)
HOSTILE = st.lists(st.sampled_from(["cat", " ", "<", *SPECIALS]), max_size=12).map("".join)


def ids(kind: str, *tokens: str) -> tuple[int, ...]:
    return tuple(special_id(kind, token) for token in tokens)


def parts_of(kind: str, *, of_bert: bool) -> Template:
    between = (END,) if of_bert else (END, END)
    return ids(kind, START), QUERY, ids(kind, *between), DOCUMENT, ids(kind, END)


def library(kind: str, *, of_bert: bool) -> Tokenizer:
    """The tokenizer with the template of BERT's pairs, or of RoBERTa's."""
    made = copy.deepcopy(TOKENIZERS[kind])
    pair = f"{START}:0 $A:0 {END}:0 $B:1 {END}:1" if of_bert else f"{START} $A {END} {END} $B {END}"
    specials = [(token, special_id(kind, token)) for token in (START, END)]
    made.post_processor = processors.TemplateProcessing(single="$A", pair=pair, special_tokens=specials)
    made.encode_special_tokens = True
    return made


@functools.cache
def opened(kind: str, after: tuple[int, ...] = ()) -> TextTokenizer:
    return TextTokenizer(TOKENIZERS[kind].to_str().encode(), 1000, TextRules(after=after))


def pairs(kind: str, rules: PairScores, query: str, documents: list[str]) -> list[PairTokens]:
    return [pair for (pair,) in PairEncoder(opened(kind), rules).encode({"query": query}, documents)]


def length(kind: str, text: str) -> int:
    return len(TOKENIZERS[kind].encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("of_bert", [True, False])
@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=3), limit=st.integers(8, 50))
def test_the_longest_is_cut_first(kind: str, of_bert: bool, query: str, documents: list[str], limit: int) -> None:
    rules = pair_scores(parts_of(kind, of_bert=of_bert), limit, "longest", token_types=of_bert)
    judge = library(kind, of_bert=of_bert)
    judge.enable_truncation(limit, strategy="longest_first")
    for found, document in zip(pairs(kind, rules, query, documents), documents, strict=True):
        expected = judge.encode(query, document)
        assert found.ids.tolist() == expected.ids
        assert found.types.tolist() == expected.type_ids
        assert found.truncated == bool(expected.overflowing)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, limit=st.integers(8, 50))
def test_the_document_is_cut(kind: str, query: str, document: str, limit: int) -> None:
    rules = pair_scores(parts_of(kind, of_bert=False), limit, "document")
    judge = library(kind, of_bert=False)
    judge.enable_truncation(limit, strategy="only_second")
    words = length(kind, query)
    whole = words + length(kind, document) + 4
    if whole > limit and words + 4 >= limit:
        with pytest.raises(InputError, match=f"^the query has {words} tokens, which leaves no room for a document: a "):
            pairs(kind, rules, query, [document])
        return
    (found,) = pairs(kind, rules, query, [document])
    assert found.ids.tolist() == judge.encode(query, document).ids
    assert found.truncated == (whole > limit)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, limit=st.integers(3, 30))
def test_the_end_is_cut_and_ids_follow(kind: str, query: str, document: str, limit: int) -> None:
    """The form of jina-reranker-m0: one text of both, and an id behind it."""
    parts = ("**Document**:\n", DOCUMENT, "\n**Query**:\n", QUERY)
    text = f"**Document**:\n{document}\n**Query**:\n{query}"
    encoder = PairEncoder(opened(kind, (100,)), pair_scores(parts, limit, "end"))
    ((found,),) = encoder.encode({"query": query}, [document])
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
    assert found.ids.tolist() == [*expected[: limit - 1], 100]
    assert found.truncated == (len(expected) > limit - 1)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, limit=st.integers(12, 60))
def test_text_around_the_slots(kind: str, query: str, document: str, limit: int) -> None:
    """The form of Qwen3-Reranker: the document ends one text with the query, and its end is cut."""
    parts = (
        *(ids(kind, TURN), "system\n", ids(kind, END), "<Query>: ", QUERY),
        *("\n<Document>: ", DOCUMENT, ids(kind, END, TURN), "cat\n"),
    )
    one, two, three = (
        TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
        for text in ("system\n", f"<Query>: {query}\n<Document>: {document}", "cat\n")
    )
    around = len(one) + len(three) + 4
    if limit <= around:
        return
    (found,) = pairs(kind, pair_scores(parts, limit, "document"), query, [document])
    turn, end = special_id(kind, TURN), special_id(kind, END)
    assert found.ids.tolist() == [turn, *one, end, *two[: limit - around], end, turn, *three]
    assert found.truncated == (len(two) + around > limit)


@pytest.mark.parametrize("cut", ["document", "longest", "end"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=HOSTILE, document=HOSTILE)
def test_special_tokens_of_texts_are_characters(kind: str, cut: Cut, query: str, document: str) -> None:
    rules = pair_scores(parts_of(kind, of_bert=True), 400, cut)
    (found,) = pairs(kind, rules, query, [document])
    specials = {special_id(kind, token) for token in SPECIALS}
    start, end = special_id(kind, START), special_id(kind, END)
    assert [number for number in found.ids.tolist() if number in specials] == [start, end, end]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, limits=st.tuples(st.integers(1, 10), st.integers(1, 10)))
def test_texts_have_limits_of_their_own(kind: str, query: str, document: str, limits: tuple[int, int]) -> None:
    rules = msgspec.structs.replace(
        pair_scores(parts_of(kind, of_bert=True), 400, "longest"),
        max_query_tokens=limits[0],
        max_document_tokens=limits[1],
    )
    (found,) = pairs(kind, rules, query, [document])
    words = [TOKENIZERS[kind].encode(text, add_special_tokens=False).ids for text in (query, document)]
    start, end = special_id(kind, START), special_id(kind, END)
    one, two = (ids[:limit] for ids, limit in zip(words, limits, strict=True))
    assert found.ids.tolist() == [start, *one, end, *two, end]
    assert found.truncated == (one != words[0] or two != words[1])


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, limit=st.integers(1, 10))
def test_texts_among_others_are_shortened(kind: str, query: str, document: str, limit: int) -> None:
    parts = ("**Document**:\n", DOCUMENT, "\n**Query**:\n", QUERY)
    rules = msgspec.structs.replace(pair_scores(parts, 400, "end"), max_query_tokens=limit, max_document_tokens=limit)
    (found,) = pairs(kind, rules, query, [document])
    short_query, short_document = (shortened(opened(kind), text, limit) for text in (query, document))
    (expected,) = pairs(kind, pair_scores(parts, 400, "end"), short_query, [short_document])
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.truncated == (max(length(kind, query), length(kind, document)) > limit)


def test_an_instruction_may_be_left_out() -> None:
    parts = (Slot(slot="instruction"), " ", QUERY, (5,), DOCUMENT)
    rules = msgspec.structs.replace(pair_scores(parts, 40, "document"), instruction="find")
    encoder = PairEncoder(opened("byte level"), rules)
    ((left_out,),) = encoder.encode({"query": "cat"}, ["Roof"])
    ((same,),) = encoder.encode({"query": "cat", "instruction": "find"}, ["Roof"])
    ((other,),) = encoder.encode({"query": "cat", "instruction": "match"}, ["Roof"])
    assert left_out.ids.tolist() == same.ids.tolist() != other.ids.tolist()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_documents_of_megabytes(kind: str) -> None:
    rules = pair_scores(parts_of(kind, of_bert=True), 40, "longest")
    long, short = pairs(kind, rules, "cat " * 100, ["Roof " * 200_000, "Roof " * 200])
    assert long.ids.tolist() == short.ids.tolist()


@pytest.mark.parametrize(
    ("parts", "cut", "problem"),
    [
        ((DOCUMENT, " ", QUERY), "document", "cut is 'document', and text follows the document"),
        ((QUERY, DOCUMENT), "longest", "cut is 'longest', and the query does not end before ids"),
        ((QUERY, " ", (1,), DOCUMENT), "longest", "cut is 'longest', and the query does not end before ids"),
    ],
)
def test_templates_that_cannot_be_followed(parts: Template, cut: Cut, problem: str) -> None:
    with pytest.raises(PackError, match=f"^template of pairs: {problem}; export the pack again$"):
        pairs("word piece", pair_scores(parts, 40, cut), "a", ["b"])


def windows(document: list[int], room: int, overlap: int) -> list[list[int]]:
    """Those of jina-reranker-v2: from the beginning on, and one at the end, each full."""
    if len(document) <= room:
        return [document]
    found, start = [], 0
    while start + room < len(document):
        found.append(document[start : start + room])
        start += room - min(overlap, room // 4)
    return [*found, document[-room:]]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, overlap=st.integers(0, 9), limit=st.integers(16, 40))
def test_documents_in_windows(kind: str, query: str, document: str, overlap: int, limit: int) -> None:
    rules = msgspec.structs.replace(
        pair_scores(parts_of(kind, of_bert=False), limit, "document"), overlap=overlap, max_query_tokens=8
    )
    (found,) = PairEncoder(opened(kind), rules).encode({"query": query}, [document])
    one, two = (TOKENIZERS[kind].encode(text, add_special_tokens=False).ids for text in (query, document))
    start, end = special_id(kind, START), special_id(kind, END)
    before = [start, *one[:8], end, end]
    expected = [[*before, *window, end] for window in windows(two, limit - len(before) - 1, overlap)]
    assert [pair.ids.tolist() for pair in found] == expected
    assert [pair.truncated for pair in found] == [len(one) > 8] * len(found)
    # All tokens of the document, each in one of its windows.
    assert {number for pair in found for number in pair.ids[len(before) : -1].tolist()} == set(two)


def test_windows_of_a_document_among_texts_are_refused() -> None:
    rules = msgspec.structs.replace(pair_scores((QUERY, (1,), "a ", DOCUMENT), 40, "document"), overlap=4)
    with pytest.raises(PackError, match="there is an overlap of windows, and the document is not alone between ids"):
        pairs("word piece", rules, "a", ["b"])


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, image=st.lists(st.integers(0, 90), min_size=1, max_size=9), limit=st.integers(30, 60))
def test_an_image_stands_in_the_place_of_the_document(kind: str, query: str, image: list[int], limit: int) -> None:
    rules = pair_scores(("passage: ", DOCUMENT, " question: ", QUERY), limit, "end")
    found = PairEncoder(opened(kind, (7,)), rules).encode_image({"query": query}, np.array(image))
    before, after = (
        TOKENIZERS[kind].encode(text, add_special_tokens=False).ids for text in ("passage: ", f" question: {query}")
    )
    whole = [*before, *image, *after]
    assert found.ids.tolist() == [*whole[: limit - 1], 7]
    assert found.truncated == (len(whole) > limit - 1)
    assert found.ids[found.image_place : found.image_place + len(image)].tolist() == image
    with pytest.raises(InputError, match=r"^an image has 60 tokens, a pair at most"):
        PairEncoder(opened(kind, (7,)), rules).encode_image({"query": query}, np.zeros(60, np.int64))


def test_a_space_before_the_first_word_alone() -> None:
    content = TOKENIZERS["unigram"].to_str().replace('"prepend_scheme":"always"', '"prepend_scheme":"first"')
    tokenizer = TextTokenizer(content.encode(), 100)
    with pytest.raises(PackError, match="puts a space before the first word alone, and text follows ids"):
        PairEncoder(tokenizer, pair_scores((QUERY, (1,), DOCUMENT), 40, "longest"))
