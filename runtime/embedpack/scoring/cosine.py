"""Scores between vectors."""

from __future__ import annotations

import numpy as np

from embedpack.errors import InputError
from embedpack.vectors.bit_packing import signs
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Float32, decode_in_codebook_space
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.metadata import check_comparable

# Documents decoded at a time: bounds the memory to 16 MB at 1024 dimensions.
BLOCK = 4096


def similarity(queries: Embeddings, documents: Embeddings) -> Float32:
    """Cosine of every query with every document, both as their codes say.

    Asymmetric scores (float queries against codes) are the more exact ones: only the documents are rounded.

    Args:
        queries: float32, float16 or int8; or codes of the precision, and the codebook, of the documents.
        documents: any precision.

    Returns:
        float32 [len(queries), len(documents)].

    Raises:
        InputError: the two are of different models, tasks, dimensions or codebooks, or the queries are codes of fewer
            bits than int8 and the documents of another precision.
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
    """Unit vectors in the coordinates of the documents' codebook: only the queries have to be turned there."""
    return decode_in_codebook_space(embeddings.codes, embeddings.precision, embeddings.dimensions, codebook)


def _binary_similarity(queries: Embeddings, documents: Embeddings) -> Float32:
    """1 - 2 * Hamming distance / dimensions, exactly: sums of +1 and -1 are whole numbers, also in float32."""
    dimensions = queries.dimensions
    left = signs(queries.codes, dimensions)
    scores = np.empty((len(queries), len(documents)), np.float32)
    for start in range(0, len(documents), BLOCK):
        scores[:, start : start + BLOCK] = left @ signs(documents.codes[start : start + BLOCK], dimensions).T
    return scores / np.float32(dimensions)


def _check_comparable(queries: Embeddings, documents: Embeddings) -> None:
    for item in (queries, documents):
        if not isinstance(item, Embeddings):
            raise InputError(f"similarity takes Embeddings, not {type(item).__name__}")
    check_comparable(queries, documents, if_dimensions="cut the longer ones with .truncate()")
