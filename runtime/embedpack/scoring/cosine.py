"""Similarity of single vectors: cosine, or the dot product of models that are trained for it."""

from __future__ import annotations

import numpy as np

from embedpack.errors import InputError
from embedpack.vectors.arrays import Float32
from embedpack.vectors.bit_packing import signs
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import DirectionError, check_vectors, decode_in_codebook_space
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.metadata import CodedVectors, check_comparable

# Number of documents decoded at a time: 16 MB at 1024 dimensions.
DECODED_DOCUMENTS = 4096


def similarity(queries: Embeddings, documents: Embeddings) -> Float32:
    """Cosine of every decoded query with every decoded document; their dot product if the model is trained for it.

    Asymmetric scores (float queries, coded documents) are more exact, as only the documents are rounded.

    Args:
        queries: vectors in float32, float16 or int8; or low-bit codes of the documents' precision and codebook.
        documents: vectors in any precision.

    Returns:
        float32 [len(queries), len(documents)].

    Raises:
        InputError: they differ in model, task or dimensions; or the queries are low-bit codes, and the documents of
            another precision or codebook; or a vector is zero or not finite.
    """
    for vectors in (queries, documents):
        if not isinstance(vectors, Embeddings):
            raise InputError(f"similarity takes Embeddings, not {type(vectors).__name__}")
    check_comparable(queries, documents, if_dimensions="shorten the longer ones with .truncate()")
    bits = are_bits(queries, documents)
    left = factors(queries, slice(0, len(queries)), documents.codebook, bits, "query")
    scores = np.empty((len(queries), len(documents)), np.float32)
    for start in range(0, len(documents), DECODED_DOCUMENTS):
        block = slice(start, start + DECODED_DOCUMENTS)
        scores[:, block] = left @ factors(documents, block, documents.codebook, bits, "document").T
    # Of bits they are dimensions - 2 * Hamming distance: integers, which float32 sums exactly.
    return scores / np.float32(queries.dimensions) if bits else scores


def similarity_factors(vectors: Embeddings) -> Float32:
    """Vectors float32 [n, dimensions] whose dot products are similarities: of length 1, or as they are under "dot"."""
    if vectors.metric.similarity == "dot":
        return vectors.decode()
    is_unit = vectors.metric.normalized and vectors.precision == "float32"
    return vectors.codes if is_unit else vectors.directions()


def are_bits(queries: CodedVectors, documents: CodedVectors) -> bool:
    """True if both are binary codes, whose scores are exact."""
    return queries.precision == documents.precision == "binary"


def factors(vectors: CodedVectors, rows: slice, codebook: Codebook | None, bits: bool, what: str) -> Float32:
    """Some rows as factors of dot products: +1 and -1 of `bits`, else unit vectors, or those of a dot product.

    They are in the coordinates of the documents' codebook, so only the queries have to be rotated. DirectionError if a
    vector has no direction; `what` is the name of the vectors for the message.
    """
    codes = vectors.codes[rows]
    if bits:
        return signs(codes, vectors.dimensions)
    try:
        if isinstance(vectors, Embeddings) and vectors.metric.similarity == "dot":
            check_vectors(codes)
            return vectors[rows].decode()
        return decode_in_codebook_space(codes, vectors.precision, vectors.dimensions, codebook, may_be_zero=False)
    except DirectionError as cause:
        raise DirectionError(rows.start + cause.row, what) from cause
