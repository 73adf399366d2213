"""Late interaction: the sum of largest dot products, for blocks of any size, only between vectors of one space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Embeddings, InputError, similarity
from embedpack.scoring import late_interaction
from embedpack.scoring.cosine import factors
from embedpack.scoring.late_interaction import maxsim
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Precision, check_precision, quantize, unit
from embedpack.vectors.multi_embeddings import MultiEmbeddings, concatenate_multi, offsets_of
from embedpack_export.arrays import Float64
from tests.helpers.codebooks import COMPARABLE, COSINES, book, coder
from tests.helpers.codebooks import by_definition as vectors_by_definition

DIMENSIONS = 16
COUNTS = st.lists(st.integers(1, 6), max_size=7)
SEEDS = st.integers(0, 1000)
PAIRS = st.sampled_from(COMPARABLE)
COSINE_PAIRS = st.sampled_from(COSINES)


def make(
    counts: Sequence[int], precision: str = "float32", seed: int = 0, dimensions: int = DIMENSIONS, space: str = "space"
) -> MultiEmbeddings:
    """Random multi-vectors of inputs with that many rows each."""
    vectors = unit(np.random.default_rng(seed).standard_normal((sum(counts), dimensions)).astype(np.float32))
    known = check_precision(precision)
    codes = quantize(vectors, known, coder(known, dimensions))
    return MultiEmbeddings(codes, offsets_of(counts), known, dimensions, space, codebook=book(known, dimensions))


def inputs_by_definition(multi: MultiEmbeddings) -> list[Float64]:
    """Unit vectors of each input, in float64."""
    values = vectors_by_definition(multi.codes, multi.precision, multi.dimensions, multi.codebook)
    return np.split(values, multi.offsets[1:-1]) if len(multi) else []


def by_definition(queries: MultiEmbeddings, documents: MultiEmbeddings) -> Float64:
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(inputs_by_definition(queries)):
        for column, document in enumerate(inputs_by_definition(documents)):
            scores[row, column] = (query @ document.T).max(axis=1).sum()
    return scores


def signs_by_definition(multi: MultiEmbeddings) -> list[npt.NDArray[np.int64]]:
    signs = np.unpackbits(multi.codes, axis=1).astype(np.int64) * 2 - 1
    return np.split(signs, multi.offsets[1:-1])


def exactly(queries: MultiEmbeddings, documents: MultiEmbeddings) -> npt.NDArray[np.float32]:
    """Scores of binary codes in whole numbers, divided and rounded once."""
    sums = [
        [int((query @ document.T).max(axis=1).sum()) for document in signs_by_definition(documents)]
        for query in signs_by_definition(queries)
    ]
    return (np.array(sums) / queries.dimensions).astype(np.float32)


@given(query_counts=COUNTS, counts=COUNTS, pair=COSINE_PAIRS, seed=SEEDS)
def test_score_is_the_definition_in_float64(
    query_counts: list[int], counts: list[int], pair: tuple[Precision, Precision], seed: int
) -> None:
    queries, documents = make(query_counts, pair[0], seed), make(counts, pair[1], seed + 1)
    scores = maxsim(queries, documents)
    assert scores.shape == (len(query_counts), len(counts))
    assert scores.dtype == np.float32
    assert np.abs(scores - by_definition(queries, documents)).max(initial=0) <= 1e-5


@given(query_counts=COUNTS, counts=COUNTS, pair=COSINE_PAIRS, query_rows=st.integers(1, 12), block=st.integers(1, 400))
def test_blocks_of_any_size_have_these_scores(
    query_counts: list[int], counts: list[int], pair: tuple[Precision, Precision], query_rows: int, block: int
) -> None:
    queries, documents = make(query_counts, pair[0], 1), make(counts, pair[1], 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_interaction, "QUERY_ROWS", query_rows)
        patch.setattr(late_interaction, "BLOCK_VALUES", block)
        scores = maxsim(queries, documents)
    assert np.abs(scores - by_definition(queries, documents)).max(initial=0) <= 1e-5


@pytest.mark.parametrize("rows", range(1, 16))
@pytest.mark.parametrize("counts", [[1, 3, 2, 5, 1, 2], [14], [1] * 14, [13, 1], [1, 13], [2, 10, 2]])
def test_document_cut_by_a_block_keeps_its_largest_products(
    monkeypatch: pytest.MonkeyPatch, counts: list[int], rows: int
) -> None:
    queries, documents = make([3, 1], "binary", 1), make(counts, "binary", 2)
    monkeypatch.setattr(late_interaction, "BLOCK_VALUES", rows * DIMENSIONS)
    assert np.array_equal(maxsim(queries, documents), exactly(queries, documents))


@pytest.mark.parametrize(
    ("left", "right", "share"), [("float32", "float32", 1), *((left, right, 8) for left, right in COSINES)]
)
def test_many_vectors_over_several_blocks(monkeypatch: pytest.MonkeyPatch, left: str, right: str, share: int) -> None:
    """Blocks of the usual size for float32, and of an eighth with an eighth of the inputs for every precision."""
    monkeypatch.setattr(late_interaction, "QUERY_ROWS", late_interaction.QUERY_ROWS // share)
    monkeypatch.setattr(late_interaction, "BLOCK_VALUES", late_interaction.BLOCK_VALUES // share**2)
    rng = np.random.default_rng(0)
    queries = make(rng.integers(20, 60, 40 // share).tolist(), left, 1, dimensions=128)
    documents = make(rng.integers(1, 300, 60 // share).tolist(), right, 2, dimensions=128)
    assert len(queries.codes) > late_interaction.QUERY_ROWS
    assert len(documents.codes) > late_interaction.BLOCK_VALUES // late_interaction.QUERY_ROWS
    assert np.allclose(maxsim(queries, documents), by_definition(queries, documents), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("query_rows", [1, 40])
def test_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch, query_rows: int) -> None:
    taken: list[int] = []

    def spy(multi: MultiEmbeddings, rows: slice, codebook: Codebook | None, bits: bool, what: str) -> Any:
        taken.append(len(multi.codes[rows]))
        return factors(multi, rows, codebook, bits, what)

    monkeypatch.setattr(late_interaction, "factors", spy)
    monkeypatch.setattr(late_interaction, "BLOCK_VALUES", 160)
    maxsim(make([query_rows]), make([1, 30, 2]))
    assert taken[0] == query_rows
    assert sum(taken[1:]) == 33
    assert max(taken[1:]) == 160 // max(query_rows, DIMENSIONS)


# Binary codes.


@pytest.mark.parametrize("dimensions", [8, 24, 128, 1024])
def test_binary_scores_are_exact(dimensions: int) -> None:
    queries = make([5, 1, 40], "binary", 1, dimensions)
    documents = make([1, 70, 3, 200], "binary", 2, dimensions)
    assert np.array_equal(maxsim(queries, documents), exactly(queries, documents))


def test_binary_sums_beyond_the_whole_numbers_of_float32_are_exact() -> None:
    rows = 90_001
    zeros = np.zeros((rows, 128), np.uint8)
    queries = MultiEmbeddings(zeros, offsets_of([rows]), "binary", 1024, "space", codebook=book("binary", 1024))
    products = np.random.default_rng(0).integers(300, 512, (rows, 20)) * 2
    expected = (products.sum(axis=0) / 1024).astype(np.float32)
    assert np.array_equal(late_interaction._sums(products.astype(np.float32), queries, True), expected[None])


# Order and grouping.


@given(query_counts=COUNTS, counts=COUNTS, pair=PAIRS, seed=SEEDS)
def test_order_of_inputs_is_the_order_of_scores(
    query_counts: list[int], counts: list[int], pair: tuple[Precision, Precision], seed: int
) -> None:
    queries, documents = make(query_counts, pair[0], seed), make(counts, pair[1], seed + 1)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(queries)), rng.permutation(len(documents))
    expected = maxsim(queries, documents)[np.ix_(rows, columns)]
    assert np.abs(maxsim(queries[rows], documents[columns]) - expected).max(initial=0) <= 2e-6


@given(counts=COUNTS.filter(len), pair=PAIRS, seed=SEEDS)
def test_order_of_vectors_within_an_input_does_not_count(
    counts: list[int], pair: tuple[Precision, Precision], seed: int
) -> None:
    queries, documents = make([3, 1], pair[0], seed), make(counts, pair[1], seed + 1)
    turned = concatenate_multi([replace(item, codes=item.codes[::-1]) for item in documents])
    assert np.abs(maxsim(queries, turned) - maxsim(queries, documents)).max() <= 2e-6


@given(first=COUNTS, second=COUNTS, pair=PAIRS)
def test_scores_of_parts_are_parts_of_the_scores(
    first: list[int], second: list[int], pair: tuple[Precision, Precision]
) -> None:
    queries = [make(first, pair[0], 1), make(second, pair[0], 2)]
    documents = [make(second, pair[1], 3), make(first, pair[1], 4)]
    expected = np.block([[maxsim(query, document) for document in documents] for query in queries])
    found = maxsim(concatenate_multi(queries), concatenate_multi(documents))
    assert np.abs(found - expected).max(initial=0) <= 2e-6


@pytest.mark.parametrize(("left", "right"), COMPARABLE)
def test_of_one_vector_each_it_is_the_similarity(
    make_embeddings: Callable[..., Embeddings], left: str, right: str
) -> None:
    singles = make_embeddings(7, left, seed=1), make_embeddings(50, right, seed=2)
    multis = [
        MultiEmbeddings(
            single.codes, np.arange(len(single) + 1), single.precision, 64, single.space, codebook=single.codebook
        )
        for single in singles
    ]
    assert np.abs(maxsim(*multis) - similarity(*singles)).max() <= 1e-6


def test_no_inputs_have_no_scores() -> None:
    assert maxsim(make([]), make([2, 3])).shape == (0, 2)
    assert maxsim(make([2, 3]), make([], "binary")).shape == (2, 0)
    assert maxsim(make([]), make([])).shape == (0, 0)


# What cannot be compared.


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        (
            {"space": "model/retrieval/0"},
            {"space": "model/code/0"},
            "vectors of different models or tasks: 'model/retrieval/0' and 'model/code/0'; embed both with one task",
        ),
        (
            {"dimensions": 64},
            {"dimensions": 128},
            "queries have 64 dimensions, documents 128; embed both with the same pack",
        ),
        (
            {"precision": "binary"},
            {"precision": "int8"},
            "binary queries are scored against binary documents only, not against int8 documents; "
            "embed the queries as float32, float16 or int8",
        ),
        (
            {"precision": "4bit"},
            {"precision": "2bit"},
            "4bit queries are scored against 4bit documents only, not against 2bit documents; "
            "embed the queries as float32, float16 or int8",
        ),
    ],
)
def test_vectors_that_cannot_be_compared(queries: dict[str, Any], documents: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        maxsim(make([2], **queries), make([3], **documents))
    assert str(caught.value) == message


def test_only_multi_vectors_are_scored(make_embeddings: Callable[..., Embeddings]) -> None:
    single: Any = make_embeddings(1)
    for arguments in ((single, make([1])), (make([1]), single)):
        with pytest.raises(InputError) as caught:
            maxsim(*arguments)
        assert str(caught.value) == "maxsim takes MultiEmbeddings, not Embeddings"


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 1e30, 1e-30])
@pytest.mark.parametrize("side", ["queries", "documents"])
def test_row_without_a_direction(value: float, side: str) -> None:
    vectors = {"queries": make([2, 3]), "documents": make([4, 1, 7])}
    vectors[side].codes[4] = value
    with pytest.raises(InputError) as caught:
        maxsim(**vectors)
    message = f"row of the {side} 4 is zero or not finite, so it has no direction; leave it out, or embed it again"
    assert str(caught.value) == message
