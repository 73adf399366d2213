"""Scores: the cosine of decoded codes, only between vectors of one space."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Embeddings, InputError, similarity
from embedpack.scoring import cosine
from embedpack.vectors.codebook import LOW_BIT
from embedpack.vectors.codes import PRECISIONS
from embedpack_export.arrays import Float64
from tests.helpers.codebooks import COMPARABLE, COSINES
from tests.helpers.codebooks import by_definition as vectors_by_definition

Make = Callable[..., Embeddings]


def by_definition(embeddings: Embeddings) -> Float64:
    return vectors_by_definition(embeddings.codes, embeddings.precision, embeddings.dimensions, embeddings.codebook)


def hamming(left: Embeddings, right: Embeddings) -> npt.NDArray[np.int64]:
    """Number of bits that differ, for every pair."""
    differing: npt.NDArray[np.uint8] = np.bitwise_xor(left.codes[:, None], right.codes[None])
    return np.unpackbits(differing, axis=-1).sum(axis=-1, dtype=np.int64)


@pytest.mark.parametrize("dimensions", [64, 16])
@pytest.mark.parametrize("blocks", [(), (16, 48)])
@pytest.mark.parametrize(("left", "right"), COSINES)
def test_score_is_the_cosine_in_float64(
    make_embeddings: Make, left: str, right: str, blocks: tuple[int, ...], dimensions: int
) -> None:
    queries = make_embeddings(7, left, seed=1, blocks=blocks).truncate(dimensions)
    documents = make_embeddings(50, right, seed=2, blocks=blocks).truncate(dimensions)
    scores = similarity(queries, documents)
    assert scores.shape == (7, 50)
    assert scores.dtype == np.float32
    assert np.abs(scores - by_definition(queries) @ by_definition(documents).T).max() <= 1e-5


@pytest.mark.parametrize("dimensions", [8, 24, 64, 384, 768, 1024])
def test_binary_scores_are_the_hamming_distance_exactly(make_embeddings: Make, dimensions: int) -> None:
    queries = make_embeddings(20, "binary", dimensions, seed=1)
    documents = make_embeddings(200, "binary", dimensions, seed=2)
    expected = 1 - 2 * hamming(queries, documents) / dimensions
    # Exactly: equal distances are ties, whatever the bits are.
    assert np.array_equal(similarity(queries, documents), expected.astype(np.float32))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_vector_is_most_like_itself(make_embeddings: Make, precision: str) -> None:
    embeddings = make_embeddings(50, precision)
    scores = similarity(embeddings, embeddings)
    assert np.allclose(scores.diagonal(), 1, atol=1e-6)
    assert np.array_equal(scores.argmax(axis=1), np.arange(50))


def test_truncated_vectors_are_scored_in_their_dimensions(make_embeddings: Make) -> None:
    queries, documents = make_embeddings(3, seed=1).truncate(16), make_embeddings(9, "int8", seed=2).truncate(16)
    expected = by_definition(queries) @ by_definition(documents).T
    assert np.abs(similarity(queries, documents) - expected).max() <= 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_documents_in_blocks_have_the_same_scores(
    make_embeddings: Make, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, documents = make_embeddings(3, seed=1), make_embeddings(10, precision, seed=2)
    at_once = similarity(queries, documents)
    monkeypatch.setattr(cosine, "DECODED_DOCUMENTS", 3)
    assert np.abs(similarity(queries, documents) - at_once).max() <= 1e-6


def test_no_vectors_have_no_scores(make_embeddings: Make) -> None:
    assert similarity(make_embeddings(0), make_embeddings(5)).shape == (0, 5)
    assert similarity(make_embeddings(5), make_embeddings(0, "binary")).shape == (5, 0)


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
            "queries have 64 dimensions, documents 128; shorten the longer ones with .truncate()",
        ),
        *(
            (
                {"precision": left},
                {"precision": right},
                f"{left} queries are scored against {left} documents only, not against {right} documents; "
                "embed the queries as float32, float16 or int8",
            )
            for left, right in product(PRECISIONS, PRECISIONS)
            if (left, right) not in COMPARABLE
        ),
    ],
)
def test_vectors_that_cannot_be_compared(
    make_embeddings: Make, queries: dict[str, Any], documents: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        similarity(make_embeddings(2, **queries), make_embeddings(3, **documents))
    assert str(caught.value) == message


@pytest.mark.parametrize("precision", LOW_BIT)
def test_codes_of_two_codebooks(make_embeddings: Make, precision: str) -> None:
    queries, documents = make_embeddings(2, precision), make_embeddings(3, precision, blocks=(16, 48))
    assert queries.codebook is not None
    assert documents.codebook is not None
    with pytest.raises(InputError) as caught:
        similarity(queries, documents)
    assert str(caught.value) == (
        f"queries were coded with the codebook {queries.codebook.id}, documents with {documents.codebook.id}; "
        "embed the queries as float32, float16 or int8"
    )
    assert similarity(make_embeddings(2), documents).shape == (2, 3)


def test_arrays_are_no_embeddings(make_embeddings: Make) -> None:
    array: Any = np.zeros((1, 64), np.float32)
    for arguments in ((array, make_embeddings(1)), (make_embeddings(1), array)):
        with pytest.raises(InputError) as caught:
            similarity(*arguments)
        assert str(caught.value) == "similarity takes Embeddings, not ndarray"


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("value", [0, np.nan, np.inf, 1e30, 1e-30])
@pytest.mark.parametrize("side", ["query", "document"])
def test_vector_without_a_direction(make_embeddings: Make, precision: str, value: float, side: str) -> None:
    """In arrays and files alike; 1e30 overflows as a square, 1e-30 has no length of 1 in float32."""
    queries, documents = make_embeddings(3), make_embeddings(cosine.DECODED_DOCUMENTS + 9, precision)
    vectors, row = (queries, 1) if side == "query" else (documents, cosine.DECODED_DOCUMENTS + 5)
    with np.errstate(all="ignore"):
        vectors.codes[row] = 0 if vectors.codes.dtype == np.int8 else value
    with pytest.raises(InputError) as caught:
        similarity(queries, documents)
    message = f"{side} {row} is zero or not finite, so it has no direction; leave it out, or embed it again"
    assert str(caught.value) == message
