"""Empty texts are left out of evaluation sets, with everything that refers to them."""

from __future__ import annotations

import pytest

from embedpack.errors import InputError
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.sets.data import PairSet, RetrievalSet
from embedpack_export.evaluation.sets.empty_text_filter import EmptyTextFilter
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def empty() -> EmptyTextFilter:
    return EmptyTextFilter.of(read_pack(TINY_PACK))


def retrieval(documents: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]) -> RetrievalSet:
    languages = [*("en" for _ in queries), *(name[-1] for name in documents)]
    return RetrievalSet("set", "retrieval", {**documents}, queries, qrels, languages, unjudged=2)


def test_documents_queries_and_judgements(empty: EmptyTextFilter) -> None:
    found = empty.remove_empty(
        retrieval(
            {"d1": "a cat", "d2": " ", "d3": "a dog"},
            {"q1": "cat", "q2": "dog", "q3": "\t", "q4": "fish"},
            {"q1": {"d1": 1, "d2": 1}, "q2": {"d3": 2}, "q3": {"d1": 1}, "q4": {"d2": 1}},
        )
    )
    assert isinstance(found, RetrievalSet)
    assert list(found.documents) == ["d1", "d3"]
    assert list(found.queries) == ["q1", "q2"]
    assert found.qrels == {"q1": {"d1": 1}, "q2": {"d3": 2}}
    assert found.languages == ["en", "en", "1", "3"]
    # q4 has no relevant document any more.
    assert (found.empty, found.unjudged) == (2, 3)


def test_a_set_without_empty_texts_is_unchanged(empty: EmptyTextFilter) -> None:
    whole = retrieval({"d1": "a cat"}, {"q1": "cat"}, {"q1": {"d1": 1}})
    assert empty.remove_empty(whole) is whole


def test_pairs(empty: EmptyTextFilter) -> None:
    found = empty.remove_empty(PairSet("sts", [1, 2, 3, 4], ["a", "", "c", "d"], ["a", "b", " ", "d"], "en"))
    assert isinstance(found, PairSet)
    assert (found.scores, found.first, found.second, found.empty) == ([1, 4], ["a", "d"], ["a", "d"], 2)


def test_nothing_is_left(empty: EmptyTextFilter) -> None:
    with pytest.raises(InputError, match="set: without its 1 empty texts no query has a relevant document"):
        empty.remove_empty(retrieval({"d1": "", "d2": "a"}, {"q1": "cat"}, {"q1": {"d1": 1}}))
    with pytest.raises(InputError, match="sts: without its 1 empty pairs there is nothing to rank"):
        empty.remove_empty(PairSet("sts", [1, 2], ["a", ""], ["a", "b"], "en"))


def test_a_text_that_cannot_be_tokenized_is_named(empty: EmptyTextFilter) -> None:
    with pytest.raises(InputError, match="set: the document d2 has a NUL character at position 1"):
        empty.remove_empty(retrieval({"d1": "", "d2": "a\0"}, {"q1": "cat"}, {"q1": {"d2": 1}}))
