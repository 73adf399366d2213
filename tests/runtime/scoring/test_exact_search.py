"""Search: the result of a stable sort of all scores, without all scores in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Embeddings, Hits, InputError, search, similarity
from embedpack.scoring import exact_search
from embedpack.scoring.top_k import Distances, Nearest, smallest
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Precision, quantize, unit
from embedpack_export.arrays import Float64
from tests.helpers.codebooks import COSINES, book, coder
from tests.helpers.codebooks import by_definition as vectors_by_definition

Make = Callable[..., Embeddings]


def sorted_all(scores: npt.NDArray[np.floating[Any]], k: int) -> npt.NDArray[np.intp]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def by_definition(embeddings: Embeddings) -> Float64:
    """Unit vectors of codes, in float64."""
    return vectors_by_definition(embeddings.codes, embeddings.precision, embeddings.dimensions, embeddings.codebook)


@pytest.fixture(params=[(3, 2), (50, 64), (7, 1), (1, 3)])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents and queries taken a few at a time, so that many blocks meet."""
    monkeypatch.setattr(exact_search, "DOCUMENTS", request.param[0])
    monkeypatch.setattr(exact_search, "QUERIES", request.param[1])


# Selection.


def few_values(rng: np.random.Generator, trial: int) -> Distances:
    """Distances of which many are equal, of the one type or the other."""
    distances = rng.integers(0, rng.integers(1, 12), rng.integers(1, 80))
    return distances.astype(np.float32) if trial % 2 else distances.astype(np.uint32)


def test_smallest_is_the_start_of_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    for trial in range(300):
        distances = few_values(rng, trial)
        for k in (1, 2, 5, len(distances), len(distances) + 3):
            assert np.array_equal(smallest(distances, k), np.argsort(distances, kind="stable")[:k])


def test_blocks_of_any_length_give_the_same() -> None:
    rng = np.random.default_rng(1)
    for trial in range(300):
        # Also ascending and descending, where nothing or everything displaces.
        distances = few_values(rng, trial)
        if trial % 3:
            distances.sort()
            distances = distances[:: 1 if trial % 3 == 1 else -1]
        cuts = [0, *np.sort(rng.integers(1, len(distances) + 1, 4)).tolist(), len(distances)]
        k = int(rng.integers(1, 30))
        nearest = Nearest(k)
        for start, stop in pairwise(cuts):
            nearest.add(distances[start:stop], start)
        expected = np.argsort(distances, kind="stable")[:k]
        assert np.array_equal(nearest.indices, expected)
        assert np.array_equal(nearest.distances, distances[expected])
        assert nearest.distances.dtype == distances.dtype


# One stage.


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("left", "right"), COSINES)
def test_scores_are_those_in_float64(make_embeddings: Make, left: str, right: str) -> None:
    queries, documents = make_embeddings(5, left, seed=1), make_embeddings(40, right, seed=2)
    hits = search(queries, documents, 7)
    assert hits.indices.dtype == np.int64
    assert hits.scores.dtype == np.float32
    assert hits.indices.shape == hits.scores.shape == (5, 7)
    exact = by_definition(queries) @ by_definition(documents).T
    assert np.abs(hits.scores - np.take_along_axis(exact, hits.indices, 1)).max() <= 1e-5
    # Only rounding may exchange two documents.
    assert np.abs(hits.scores - np.take_along_axis(exact, sorted_all(exact, 7), 1)).max() <= 1e-5
    assert all(len(set(row)) == 7 for row in hits.indices.tolist())


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dimensions", [8, 24, 64, 384])
def test_bits_are_found_as_a_stable_sort_finds_them(make_embeddings: Make, dimensions: int) -> None:
    # With 8 dimensions there are 9 scores for 300 documents.
    queries, documents = (make_embeddings(n, "binary", dimensions, seed=n) for n in (6, 300))
    scores = similarity(queries, documents)
    for k in (1, 10, 299, 300, 400):
        hits = search(queries, documents, k)
        assert np.array_equal(hits.indices, sorted_all(scores, k))
        assert np.array_equal(hits.scores, np.take_along_axis(scores, hits.indices, 1))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_equal_documents_come_in_their_order(precision: Precision) -> None:
    # Products of these vectors are exact, so equal scores are equal in every block.
    corners = np.eye(8, dtype=np.float32)[np.random.default_rng(3).integers(0, 4, 60)]
    documents = Embeddings(quantize(corners, precision, 1.0 if precision == "int8" else None), precision, 8, "s")
    queries = Embeddings(np.eye(8, dtype=np.float32)[:5], "float32", 8, "s")
    for k in (1, 20, 59, 60):
        assert np.array_equal(search(queries, documents, k).indices, sorted_all(similarity(queries, documents), k))


def test_more_than_there_are_gives_all(make_embeddings: Make) -> None:
    hits = search(make_embeddings(2, seed=1), make_embeddings(4, seed=2), 10)
    assert np.array_equal(np.sort(hits.indices), [[0, 1, 2, 3]] * 2)
    assert (np.diff(hits.scores) <= 0).all()


def test_no_queries_have_no_hits(make_embeddings: Make) -> None:
    for rescore in (None, make_embeddings(5, "int8")):
        hits = search(make_embeddings(0), make_embeddings(5, "binary"), 3, rescore=rescore)
        assert hits.indices.shape == hits.scores.shape == (0, 3)


def test_ten_are_found_where_nobody_says_how_many(make_embeddings: Make) -> None:
    assert search(make_embeddings(1), make_embeddings(50)).indices.shape == (1, 10)


# Two stages.


def two_stages(queries: Embeddings, first: Embeddings, second: Embeddings, k: int, oversample: int) -> Hits:
    """The definition, on whole matrices of scores."""
    if first.precision == "binary":
        assert first.codebook is not None
        vectors = queries.decode() * np.float32(first.codebook.length(first.dimensions))
        bits = quantize(vectors, "binary", first.codebook)
        coded = replace(queries, codes=bits, precision="binary", codebook=first.codebook)
        candidates = sorted_all(similarity(coded, first), k * oversample)
    else:
        candidates = sorted_all(similarity(queries, first), k * oversample)
    scores = similarity(queries, second)
    others = np.ones(scores.shape, bool)
    np.put_along_axis(others, candidates, False, 1)
    indices = sorted_all(np.where(others, np.float32(-9), scores), min(k, candidates.shape[1]))
    return Hits(indices, np.take_along_axis(scores, indices, 1))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("query", ["float32", "float16", "int8"])
@pytest.mark.parametrize("first", ["binary", "int8"])
@pytest.mark.parametrize("second", ["int8", "float16", "float32"])
def test_two_stages_are_their_definition(make_embeddings: Make, query: str, first: str, second: str) -> None:
    queries = make_embeddings(5, query, seed=1)
    documents, rescore = make_embeddings(120, first, seed=2), make_embeddings(120, second, seed=2)
    for k, oversample in ((1, 1), (5, 2), (10, 3), (50, 2), (100, 2)):
        hits = search(queries, documents, k, rescore=rescore, oversample=oversample)
        expected = two_stages(queries, documents, rescore, k, oversample)
        assert np.array_equal(hits.indices, expected.indices)
        assert np.abs(hits.scores - expected.scores).max() <= 1e-6


@pytest.mark.parametrize("second", ["int8", "float16", "float32", "binary"])
def test_all_candidates_give_the_exact_result(make_embeddings: Make, second: str) -> None:
    queries, documents, rescore = (
        make_embeddings(5, seed=1),
        *(make_embeddings(99, p, seed=2) for p in ("binary", second)),
    )
    exact, hits = search(queries, rescore, 10), search(queries, documents, 10, rescore=rescore, oversample=10)
    assert np.array_equal(hits.indices, exact.indices)
    assert np.abs(hits.scores - exact.scores).max() <= 1e-6


def test_equal_candidates_come_in_their_order() -> None:
    # All bits are equal, and so are the products of the rows 1, 3, 5, ... with the query.
    vectors = np.tile(np.array([[4, 3, 0, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0, 0, 0]], np.float32), (10, 1))
    documents = Embeddings(quantize(vectors, "binary", coder("binary", 8)), "binary", 8, "s", None, book("binary", 8))
    rescore = Embeddings(vectors, "float32", 8, "s")
    hits = search(Embeddings(vectors[1:2], "float32", 8, "s"), documents, 4, rescore=rescore, oversample=2)
    assert hits.indices.tolist() == [[1, 3, 5, 7]]
    assert np.allclose(hits.scores, 1)


def test_ten_times_k_are_candidates_where_nobody_says_how_many(make_embeddings: Make) -> None:
    queries, documents, rescore = (
        make_embeddings(9, seed=1),
        *(make_embeddings(500, p, seed=2) for p in ("binary", "int8")),
    )
    found = search(queries, documents, 3, rescore=rescore)
    assert np.array_equal(found.indices, search(queries, documents, 3, rescore=rescore, oversample=10).indices)


def test_bits_of_truncated_queries_are_nearly_those_of_full_ones() -> None:
    """Also with a long center, which would decide all scores if queries were not scaled like the coded vectors."""
    random = np.random.default_rng(0)
    vectors = unit((1 + random.standard_normal((200, 256)) / 2).astype(np.float32))
    codebook = Codebook.gaussian(vectors.mean(axis=0), float((vectors - vectors.mean(axis=0)).std()))
    documents = Embeddings(quantize(vectors, "binary", codebook), "binary", 256, "s", None, codebook).truncate(64)
    queries = Embeddings(vectors, "float32", 256, "s").truncate(64)
    bits = exact_search.in_precision_of(documents, queries)
    assert similarity(bits, documents).diagonal().mean() > 0.9


def test_mapped_codes_are_searched_like_those_in_memory(make_embeddings: Make, tmp_path: Path) -> None:
    queries = make_embeddings(3, seed=1)
    kept, mapped = {}, {}
    for precision in ("binary", "int8"):
        kept[precision] = make_embeddings(50, precision, seed=2)
        kept[precision].save(tmp_path / precision)
        mapped[precision] = Embeddings.load(tmp_path / precision, mapped=True)
    for documents in (kept, mapped):
        hits = search(queries, documents["binary"], 5, rescore=documents["int8"], oversample=2)
        expected = two_stages(queries, kept["binary"], kept["int8"], 5, 2)
        assert np.array_equal(hits.indices, expected.indices)


# What cannot be searched.


@pytest.mark.parametrize("k", [0, -1, 2.0, "3"])
def test_k_that_is_no_number_of_documents(make_embeddings: Make, k: Any) -> None:
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1), make_embeddings(2), k)
    assert str(caught.value) == f"k is {k!r}; it must be a whole number of at least 1"


def test_oversample_below_one(make_embeddings: Make) -> None:
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1), make_embeddings(2, "binary"), rescore=make_embeddings(2), oversample=0)
    assert str(caught.value) == "oversample is 0; it must be a whole number of at least 1"


def test_oversample_without_a_second_stage(make_embeddings: Make) -> None:
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1), make_embeddings(2), oversample=4)
    assert str(caught.value) == "oversample is 4, but only a search with rescore has a second stage; leave it out"


def test_no_documents(make_embeddings: Make) -> None:
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1), make_embeddings(0))
    assert str(caught.value) == "there are no documents to search"


def test_rescore_of_other_documents(make_embeddings: Make) -> None:
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1), make_embeddings(5, "binary"), rescore=make_embeddings(6, "int8"))
    assert str(caught.value) == "rescore has 6 rows, documents 5; it holds the same documents, row for row"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "a"}, "vectors of different models or tasks: 'model/task/0' and 'a'; embed both with one task"),
        ({"dimensions": 32}, "queries have 64 dimensions, documents 32; shorten the longer ones with .truncate()"),
    ],
)
@pytest.mark.parametrize("where", ["documents", "rescore"])
def test_vectors_that_cannot_be_compared(
    make_embeddings: Make, changes: dict[str, Any], message: str, where: str
) -> None:
    documents = make_embeddings(5, "binary", **(changes if where == "documents" else {}))
    rescore = make_embeddings(5, "int8", **(changes if where == "rescore" else {}))
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1), documents, rescore=rescore)
    assert str(caught.value) == message


def test_binary_queries_against_finer_documents(make_embeddings: Make) -> None:
    with pytest.raises(InputError) as caught:
        search(make_embeddings(1, "binary"), make_embeddings(5, "binary"), rescore=make_embeddings(5, "int8"))
    assert str(caught.value).startswith("binary queries are scored against binary documents only")


def test_arrays_are_no_embeddings(make_embeddings: Make) -> None:
    array: Any = np.zeros((1, 64), np.float32)
    good = make_embeddings(1)
    for queries, documents, rescore in ((array, good, None), (good, array, None), (good, good, array)):
        with pytest.raises(InputError) as caught:
            search(queries, documents, rescore=rescore)
        assert str(caught.value) == "search takes Embeddings, not ndarray"


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
@pytest.mark.parametrize("precision", ["float32", "binary"])
def test_query_without_a_direction(make_embeddings: Make, value: float, precision: str) -> None:
    queries = make_embeddings(3)
    queries.codes[1] = value
    with pytest.raises(InputError) as caught:
        search(queries, make_embeddings(5, precision))
    assert str(caught.value) == "query 1 is zero or not finite, so it has no direction; leave it out, or embed it again"


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_document_that_is_not_finite(make_embeddings: Make, value: float) -> None:
    documents = make_embeddings(20)
    documents.codes[13, 5] = value
    bits = make_embeddings(20, "binary")
    for first, rescore in ((documents, None), (bits, documents)):
        with pytest.raises(InputError) as caught:
            search(make_embeddings(3, seed=1), first, rescore=rescore)
        assert (
            str(caught.value)
            == "document 13 is zero or not finite, so it has no direction; leave it out, or embed it again"
        )
