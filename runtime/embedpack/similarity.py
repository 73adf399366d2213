"""Scores between vectors."""

from __future__ import annotations

import numpy as np

from embedpack.codes import Float32, signs
from embedpack.embeddings import Embeddings
from embedpack.errors import InputError
from embedpack.kinds import check_comparable

# Documents decoded at a time: bounds the memory to 16 MB at 1024 dimensions.
BLOCK = 4096


def similarity(queries: Embeddings, documents: Embeddings) -> Float32:
    """Cosine of every query with every document, both as their codes say.

    Asymmetric scores (float queries against codes) are the more exact ones: only the documents are rounded.

    Args:
        queries: any precision.
        documents: any precision.

    Returns:
        float32 [len(queries), len(documents)].

    Raises:
        InputError: the two are of different models, tasks or dimensions, or of two precisions neither of which is
            float or int8 on the query side.
    """
    _check_comparable(queries, documents)
    if queries.precision == documents.precision == "binary":
        return _binary_similarity(queries, documents)
    left = queries.decode()
    scores = np.empty((len(queries), len(documents)), np.float32)
    for start in range(0, len(documents), BLOCK):
        scores[:, start : start + BLOCK] = left @ documents[start : start + BLOCK].decode().T
    return scores


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
    check_comparable(
        queries, documents, if_dimensions="cut the longer ones with .truncate()", if_binary="swap the roles"
    )
