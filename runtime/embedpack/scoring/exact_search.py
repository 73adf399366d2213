"""Exact top-k search in one or two stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedpack.errors import InputError
from embedpack.scoring.cosine import are_bits, similarity
from embedpack.scoring.hamming import hamming
from embedpack.scoring.top_k import Distances, Int64, Nearest, smallest
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import DirectionError, quantize
from embedpack.vectors.embeddings import Embeddings

# Numbers of documents and queries of a block of distances: 16 MB.
DOCUMENTS = 1 << 16
QUERIES = 1 << 6
# Default number of candidates of the first stage as a multiple of k.
OVERSAMPLE = 10


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest documents of every query, best first.

    Attributes:
        indices: rows of the documents, int64 [queries, k].
        scores: their scores, float32 [queries, k].
    """

    indices: Int64
    scores: Float32


def search(
    queries: Embeddings,
    documents: Embeddings,
    k: int = 10,
    *,
    rescore: Embeddings | None = None,
    oversample: int | None = None,
) -> Hits:
    """Find the k documents with the highest `similarity` to each query; ties go to the lower row.

    With `rescore` the search has two stages: a scan of `documents` selects `oversample * k` candidates, and their rows
    of `rescore` give the final scores. Binary documents are then scanned by Hamming distance with the bits of the
    queries, which is many times faster than reading float32 vectors. Codes may be memory-mapped: the scan reads all
    `documents`, but of `rescore` only the candidates' rows.

    Args:
        queries: vectors that can be scored against `rescore`, else against `documents`; float32 is the most exact.
        documents: vectors to search.
        k: number of documents per query; all documents if there are fewer.
        rescore: the same documents, row for row, in a finer precision, e.g. int8.
        oversample: number of candidates of the first stage as a multiple of k; default 10.

    Returns:
        Hits of shape [len(queries), min(k, len(documents))].

    Raises:
        InputError: there are no documents, k or oversample is below 1, oversample is set without rescore, rescore has
            another number of rows, the vectors cannot be compared (see `similarity`), or some are not finite.
    """
    _check(queries, documents, rescore)
    _check_number("k", k)
    if rescore is None:
        if oversample is not None:
            raise InputError(
                f"oversample is {oversample}, but only a search with rescore has a second stage; leave it out"
            )
        return _scan(queries, documents, k)
    oversample = OVERSAMPLE if oversample is None else oversample
    _check_number("oversample", oversample)
    candidates = _scan(in_precision_of(documents, queries), documents, oversample * k)
    return _rescored(queries, rescore, candidates.indices, k)


def in_precision_of(documents: Embeddings, queries: Embeddings) -> Embeddings:
    """Queries in the form of the fastest scan: binary codes for binary documents, else unchanged."""
    if documents.precision != "binary" or queries.precision == "binary":
        return queries
    codebook = documents.codebook
    assert codebook is not None
    vectors = queries.directions() * np.float32(codebook.length(documents.dimensions))
    return replace(queries, codes=quantize(vectors, "binary", codebook), precision="binary", codebook=codebook)


def _check(queries: Embeddings, documents: Embeddings, rescore: Embeddings | None) -> None:
    for vectors in (queries, documents) if rescore is None else (queries, documents, rescore):
        if not isinstance(vectors, Embeddings):
            raise InputError(f"search takes Embeddings, not {type(vectors).__name__}")
    if not len(documents):
        raise InputError("there are no documents to search")
    for vectors in (documents,) if rescore is None else (documents, rescore):
        # Raises the errors of `similarity` before any vector is read.
        similarity(queries[:0], vectors[:0])
    if rescore is not None and len(rescore) != len(documents):
        raise InputError(
            f"rescore has {len(rescore)} rows, documents {len(documents)}; it holds the same documents, row for row"
        )
    # Raises its error for queries without a direction.
    similarity(queries, documents[:0])


def _check_number(name: str, number: int) -> None:
    if not isinstance(number, int | np.integer) or number < 1:
        raise InputError(f"{name} is {number!r}; it must be a whole number of at least 1")


def _scan(queries: Embeddings, documents: Embeddings, k: int) -> Hits:
    """Find the k nearest of all documents; each batch of queries takes one pass over them."""
    k = min(k, len(documents))
    indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), QUERIES):
        batch = queries[start : start + QUERIES]
        nearest = [Nearest(k) for _ in batch.codes]
        for first in range(0, len(documents), DOCUMENTS):
            block = documents[first : first + DOCUMENTS]
            distances_of_block = _distances(batch, block, range(first, first + len(block)))
            for best, row in zip(nearest, distances_of_block, strict=True):
                best.add(row, first)
        for query, best in enumerate(nearest, start):
            indices[query], distances[query] = best.indices, best.distances
    return Hits(indices, _scores(distances, queries, documents))


def _rescored(queries: Embeddings, documents: Embeddings, candidates: Int64, k: int) -> Hits:
    """Find the k nearest among the candidates of each query: rows of documents, int64 [queries, any number]."""
    k = min(k, candidates.shape[1])
    indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for query, rows in enumerate(np.sort(candidates, axis=1)):
        candidate_distances = _distances(queries[query], documents[rows], rows)[0]
        best = smallest(candidate_distances, k)
        indices[query], distances[query] = rows[best], candidate_distances[best]
    return Hits(indices, _scores(distances, queries, documents))


def _distances(queries: Embeddings, documents: Embeddings, rows: Sequence[int] | Int64) -> Distances:
    """Hamming distances between binary codes, else negated similarities: [queries, documents].

    `rows` are the indices of these documents among all, for error messages.
    """
    if are_bits(queries, documents):
        return hamming(queries.codes, documents.codes)
    try:
        scores = similarity(queries, documents)
    except DirectionError as cause:
        raise DirectionError(int(rows[cause.row]), "document") from cause
    return np.negative(scores, out=scores)


def _scores(distances: Float32, queries: Embeddings, documents: Embeddings) -> Float32:
    """Similarities that belong to distances, equal to those of `similarity` bit for bit."""
    if are_bits(queries, documents):
        return (queries.dimensions - 2 * distances) / np.float32(queries.dimensions)
    return -distances
