"""Late interaction: MaxSim scores of multi-vectors (Khattab and Zaharia 2020, arXiv 2004.12832)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedpack.errors import InputError
from embedpack.scoring.cosine import are_bits, factors
from embedpack.scoring.exact_search import Hits
from embedpack.scoring.top_k import smallest
from embedpack.vectors.arrays import Float32
from embedpack.vectors.metadata import check_comparable
from embedpack.vectors.multi_embeddings import Int64, MultiEmbeddings

# Number of query rows scored at a time; a longer query is not split.
QUERY_ROWS = 1024
# Number of values of a block, 16 MB: of dot products (query rows x document rows), or of decoded document vectors.
BLOCK_VALUES = 1 << 22


def maxsim(queries: MultiEmbeddings, documents: MultiEmbeddings) -> Float32:
    """MaxSim of every decoded query with every decoded document, float32 [len(queries), len(documents)].

    It is the sum over the query's vectors of the largest dot product with a vector of the document. Precisions and
    errors are those of `similarity`.
    """
    for vectors in (queries, documents):
        if not isinstance(vectors, MultiEmbeddings):
            raise InputError(f"maxsim takes MultiEmbeddings, not {type(vectors).__name__}")
    check_comparable(queries, documents, if_dimensions="embed both with the same pack")
    scores = np.empty((len(queries), len(documents)), np.float32)
    for first, last in _query_blocks(queries.offsets):
        rows = slice(int(queries.offsets[first]), int(queries.offsets[last]))
        left = factors(queries, rows, documents.codebook, are_bits(queries, documents), "row of the queries")
        _score(left, queries[first:last], documents, scores[first:last])
    return scores


def search_multi(queries: MultiEmbeddings, documents: MultiEmbeddings, k: int) -> Hits:
    """Find the k documents with the highest `maxsim` to each query; ties go to the lower row. Errors as of `maxsim`."""
    scores = maxsim(queries, documents)
    indices = np.stack([smallest(-row, k) for row in scores])
    return Hits(indices, np.take_along_axis(scores, indices, axis=1))


def _query_blocks(offsets: Int64) -> Iterator[tuple[int, int]]:
    """Yield bounds of consecutive blocks of whole queries."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + QUERY_ROWS, "right")) - 1)
        yield first, last
        first = last


def _score(left: Float32, queries: MultiEmbeddings, documents: MultiEmbeddings, scores: Float32) -> None:
    """Compute the scores of some queries with the factors `left`, one block of document rows at a time."""
    bits = are_bits(queries, documents)
    rows = max(1, BLOCK_VALUES // max(len(left), documents.dimensions))
    carried = np.empty(0, np.float32)
    for start in range(0, len(documents.codes), rows):
        stop = min(start + rows, len(documents.codes))
        first = int(np.searchsorted(documents.offsets, start, "right")) - 1
        last = int(np.searchsorted(documents.offsets, stop, "left"))
        begins = np.maximum(documents.offsets[first:last] - start, 0)
        rows_of_block = factors(documents, slice(start, stop), documents.codebook, bits, "row of the documents")
        products = left @ rows_of_block.T
        best = np.maximum.reduceat(products, begins, axis=1)
        if documents.offsets[first] < start:
            np.maximum(best[:, 0], carried, out=best[:, 0])
        # The last document may continue in the next block, which then overwrites its score.
        carried = best[:, -1].copy()
        scores[:, first:last] = _sums(best, queries, bits)


def _sums(best: Float32, queries: MultiEmbeddings, bits: bool) -> Float32:
    # The sum over a long query of bits exceeds the integers that float32 represents exactly.
    sums = np.add.reduceat(best, queries.offsets[:-1], axis=0, dtype=np.float64 if bits else np.float32)
    return (sums / queries.dimensions).astype(np.float32) if bits else sums
