"""Pairs of a query and a document: token ids, token types and cuts are those of the tokenizers library."""

from __future__ import annotations

import copy
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from embedpack import InputError, PackError
from embedpack.inputs.pairs import Cut, PairEncoder, PairRules, PairTokens
from embedpack.inputs.tokenizer import TextRules, TextTokenizer
from embedpack.pack.templates import IdsPart, Part, SlotPart, TextPart
from tests.helpers.tokenizers import SPECIALS, TOKENIZERS, special_id

START, END, MARK, TURN = SPECIALS
QUERY, DOCUMENT = SlotPart("query"), SlotPart("document")
TEXTS = st.lists(st.sampled_from(["cat ", "Roof", " ", ".", "é", "query"]), min_size=1, max_size=30).map("".join)
HOSTILE = st.lists(st.sampled_from(["cat", " ", "<", *SPECIALS]), max_size=12).map("".join)


def ids(kind: str, *tokens: str) -> IdsPart:
    return IdsPart(tuple(special_id(kind, token) for token in tokens))


def parts_of(kind: str, *, of_bert: bool) -> tuple[Part, ...]:
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


def pairs(kind: str, rules: PairRules, query: str, documents: list[str]) -> list[PairTokens]:
    return PairEncoder(opened(kind), rules).encode({"query": query}, documents)


def length(kind: str, text: str) -> int:
    return len(TOKENIZERS[kind].encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("of_bert", [True, False])
@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=3), limit=st.integers(8, 50))
def test_the_longest_is_cut_first(kind: str, of_bert: bool, query: str, documents: list[str], limit: int) -> None:
    rules = PairRules(parts_of(kind, of_bert=of_bert), limit, "longest", token_types=of_bert)
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
    rules = PairRules(parts_of(kind, of_bert=False), limit, "document")
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
    parts = (TextPart("**Document**:\n"), DOCUMENT, TextPart("\n**Query**:\n"), QUERY)
    text = f"**Document**:\n{document}\n**Query**:\n{query}"
    encoder = PairEncoder(opened(kind, (100,)), PairRules(parts, limit, "end"))
    (found,) = encoder.encode({"query": query}, [document])
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
    assert found.ids.tolist() == [*expected[: limit - 1], 100]
    assert found.truncated == (len(expected) > limit - 1)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, document=TEXTS, limit=st.integers(12, 60))
def test_text_around_the_slots(kind: str, query: str, document: str, limit: int) -> None:
    """The form of Qwen3-Reranker: the document ends one text with the query, and its end is cut."""
    parts = (
        *(ids(kind, TURN), TextPart("system\n"), ids(kind, END), TextPart("<Query>: "), QUERY),
        *(TextPart("\n<Document>: "), DOCUMENT, ids(kind, END, TURN), TextPart("cat\n")),
    )
    one, two, three = (
        TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
        for text in ("system\n", f"<Query>: {query}\n<Document>: {document}", "cat\n")
    )
    around = len(one) + len(three) + 4
    if limit <= around:
        return
    (found,) = pairs(kind, PairRules(parts, limit, "document"), query, [document])
    turn, end = special_id(kind, TURN), special_id(kind, END)
    assert found.ids.tolist() == [turn, *one, end, *two[: limit - around], end, turn, *three]
    assert found.truncated == (len(two) + around > limit)


@pytest.mark.parametrize("cut", ["document", "longest", "end"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=HOSTILE, document=HOSTILE)
def test_special_tokens_of_texts_are_characters(kind: str, cut: Cut, query: str, document: str) -> None:
    rules = PairRules(parts_of(kind, of_bert=True), 400, cut)
    (found,) = pairs(kind, rules, query, [document])
    specials = {special_id(kind, token) for token in SPECIALS}
    start, end = special_id(kind, START), special_id(kind, END)
    assert [number for number in found.ids.tolist() if number in specials] == [start, end, end]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(query=TEXTS, limit=st.integers(1, 10))
def test_a_query_has_a_limit_of_its_own(kind: str, query: str, limit: int) -> None:
    rules = PairRules(parts_of(kind, of_bert=True), 400, "document", max_query_tokens=limit)
    (found,) = pairs(kind, rules, query, ["cat"])
    words = TOKENIZERS[kind].encode(query, add_special_tokens=False).ids
    end = special_id(kind, END)
    assert found.ids.tolist()[1 : 1 + len(words[:limit]) + 1] == [*words[:limit], end]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_documents_of_megabytes(kind: str) -> None:
    rules = PairRules(parts_of(kind, of_bert=True), 40, "longest")
    long, short = pairs(kind, rules, "cat " * 100, ["Roof " * 200_000, "Roof " * 200])
    assert long.ids.tolist() == short.ids.tolist()


@pytest.mark.parametrize(
    ("parts", "cut", "limit", "problem"),
    [
        ((QUERY,), "end", None, "it has the slot 'document' 0 times"),
        ((QUERY, QUERY, DOCUMENT), "end", None, "it has the slot 'query' 2 times"),
        ((DOCUMENT, TextPart(" "), QUERY), "document", None, "cut is 'document', and text follows the document"),
        ((QUERY, DOCUMENT), "longest", None, "cut is 'longest', and the query does not end before ids"),
        ((QUERY, TextPart(" "), IdsPart((1,)), DOCUMENT), "longest", None, "cut is 'longest', and the query does not"),
        ((TextPart("a "), QUERY, IdsPart((1,)), DOCUMENT), "end", 5, "max_query_tokens is set, and the query is not"),
    ],
)
def test_rules_that_cannot_be_followed(parts: tuple[Part, ...], cut: Cut, limit: int | None, problem: str) -> None:
    with pytest.raises(PackError, match=f"^template of pairs: {problem}.*; export the pack again$"):
        pairs("word piece", PairRules(parts, 40, cut, limit), "a", ["b"])


def test_a_space_before_the_first_word_alone() -> None:
    content = TOKENIZERS["unigram"].to_str().replace('"prepend_scheme":"always"', '"prepend_scheme":"first"')
    tokenizer = TextTokenizer(content.encode(), 100)
    with pytest.raises(PackError, match="puts a space before the first word alone, and text follows ids"):
        PairEncoder(tokenizer, PairRules((QUERY, IdsPart((1,)), DOCUMENT), 40, "longest"))
