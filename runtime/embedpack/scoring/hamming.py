"""Exact Hamming distances between packed bits, by numpy or, faster, by numkong if it is installed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError

# Number of bytes of documents that numpy compares at a time: these and two arrays of the same size fit the caches.
BLOCK_BYTES = 1 << 19
# Fewest bytes of a code for which numkong is faster for a single query: below, the overhead of each pair dominates.
# Measured on x86 with AVX2.
MIN_NUMKONG_BYTES = 96

Bits = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.uint32]
Kernel = Callable[[Bits, Bits], Distances]

logger = logging.getLogger("embedpack")


def hamming(queries: Bits, documents: Bits) -> Distances:
    """Number of bits in which every query, uint8 [n, width], differs from every document, uint8 [m, width].

    The result, uint32 [n, m], is one array; for many documents pass some rows at a time. InputError for arrays of
    another kind or of different widths.
    """
    for bits in (queries, documents):
        if bits.ndim != 2 or bits.dtype != np.uint8:
            found = f"{list(bits.shape)} of type {bits.dtype}"
            raise InputError(
                f"packed bits are an array [n, width] of type uint8, not {found}; pass the `codes` of binary vectors"
            )
    if queries.shape[1] != documents.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} bytes, documents {documents.shape[1]}; "
            f"Hamming distances need codes of the same length"
        )
    if 0 in (*queries.shape, *documents.shape):
        return np.zeros((len(queries), len(documents)), np.uint32)
    return kernel()(np.ascontiguousarray(queries), np.ascontiguousarray(documents))


@functools.cache
def kernel() -> Kernel:
    """Function that computes the distances: by numkong if it can be imported, else by numpy."""
    try:
        import numkong  # noqa: F401
    except ImportError:
        logger.debug("Hamming distances by numpy; pip install 'embedpack[fast]' makes them faster")
        return with_numpy
    logger.debug("Hamming distances by numkong")
    return with_numkong


def with_numpy(queries: Bits, documents: Bits) -> Distances:
    """Compute the distances by numpy, for contiguous arrays that are not empty."""
    words: tuple[type[np.unsignedinteger], ...] = (np.uint64, np.uint32, np.uint16)
    word = next((word for word in words if queries.shape[1] % np.dtype(word).itemsize == 0), np.uint8)
    left, right = queries.view(word), documents.view(word)
    width = left.shape[1]
    rows = min(len(documents), max(1, BLOCK_BYTES // queries.shape[1]))
    differing = np.empty((rows, width), word)
    # A matrix product sums float counts at twice the speed of np.sum. It is exact below 2 ** 24 bits.
    counts, ones = np.empty((rows, width), np.float32), np.ones(width, np.float32)
    distances = np.empty((len(queries), len(documents)), np.uint32)
    for query, row in zip(left, distances, strict=True):
        # Repeated, because numpy broadcasts a row in loops as short as the row.
        repeated = np.repeat(query[None], rows, axis=0)
        for start in range(0, len(documents), rows):
            block = right[start : start + rows]
            size = len(block)
            np.bitwise_xor(block, repeated[:size], out=differing[:size])
            np.bitwise_count(differing[:size], out=counts[:size])
            row[start : start + size] = counts[:size] @ ones
    return distances


def with_numkong(queries: Bits, documents: Bits) -> Distances:
    """Compute the distances by numkong on one thread, or by numpy where that is faster."""
    import numkong

    single = len(queries) == 1
    if single and queries.shape[1] < MIN_NUMKONG_BYTES:
        return with_numpy(queries, documents)
    # The output's dtype selects the kernel: that of uint32 reads documents once for several queries; that of float32 is
    # faster for a single query, and exact below 2 ** 24 bits.
    distances = np.empty((len(queries), len(documents)), np.float32 if single else np.uint32)
    numkong.cdist(queries, documents, "hamming", dtype="uint1", out=distances)
    return distances.astype(np.uint32, copy=False)
