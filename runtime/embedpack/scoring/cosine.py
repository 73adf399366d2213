"""Cosine similarity of single vectors."""

from __future__ import annotations

import numpy as np

from embedpack.errors import InputError
from embedpack.vectors.bit_packing import signs
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Float32, decode_in_codebook_space
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.metadata import check_comparable

# Number of documents decoded at a time: 16 MB at 1024 dimensions.
BLOCK = 4096


def similarity(queries: Embeddings, documents: Embeddings) -> Float32:
    """Cosine of every decoded query with every decoded document.

    Asymmetric scores (float queries, coded documents) are more exact, as only the documents are rounded.

    Args:
        queries: vectors in float32, float16 or int8; or low-bit codes of the documents' precision and codebook.
        documents: vectors in any precision.

    Returns:
        float32 [len(queries), len(documents)].

    Raises:
        InputError: they differ in model, task or dimensions; or the queries are low-bit codes, and the documents of
            another precision or codebook.
    """
    _check_comparable(queries, documents)
    if queries.precision == documents.precision == "binary":
        return _binary_similarity(queries, documents)
    left = _vectors(queries, documents.codebook)
    scores = np.empty((len(queries), len(documents)), np.float32)
    for start in range(0, len(documents), BLOCK):
        scores[:, start : start + BLOCK] = left @ _vectors(documents[start : start + BLOCK], documents.codebook).T
    return scores


def _vectors(embeddings: Embeddings, codebook: Codebook | None) -> Float32:
    """Unit vectors in the coordinates of the documents' codebook: only the queries have to be rotated."""
    return decode_in_codebook_space(embeddings.codes, embeddings.precision, embeddings.dimensions, codebook)


def _binary_similarity(queries: Embeddings, documents: Embeddings) -> Float32:
    """1 - 2 * Hamming distance / dimensions, exact: sums of +1 and -1 are integers, also in float32."""
    dimensions = queries.dimensions
    left = signs(queries.codes, dimensions)
    scores = np.empty((len(queries), len(documents)), np.float32)
    for start in range(0, len(documents), BLOCK):
        scores[:, start : start + BLOCK] = left @ signs(documents.codes[start : start + BLOCK], dimensions).T
    return scores / np.float32(dimensions)


def _check_comparable(queries: Embeddings, documents: Embeddings) -> None:
    for vectors in (queries, documents):
        if not isinstance(vectors, Embeddings):
            raise InputError(f"similarity takes Embeddings, not {type(vectors).__name__}")
    check_comparable(queries, documents, if_dimensions="shorten the longer ones with .truncate()")
