"""Pooling and padding for peers that return hidden states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.peers.job import PeerVectors, Rows

Ids = npt.NDArray[np.int64]


def pooled(states: npt.NDArray[np.float32], mask: Ids, pooling: str) -> PeerVectors:
    """Unit vectors float32 [rows, dimensions] of hidden states [rows, tokens, dimensions], padded on the right.

    Raises:
        ValueError: the pooling is unknown.
    """
    if pooling == "mean":
        vectors = (states * mask[..., None]).sum(1, dtype=np.float32)
    elif pooling == "cls":
        vectors = states[:, 0]
    elif pooling == "last":
        vectors = states[np.arange(len(states)), mask.sum(1) - 1]
    else:
        raise ValueError(f"pooling {pooling!r}; known: mean, cls, last")
    return unit(vectors)


def unit(vectors: npt.NDArray[np.float32]) -> PeerVectors:
    """Rows normalized to length 1."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def padded(rows: Rows, pad_token_id: int) -> tuple[Ids, Ids]:
    """Token ids and mask, int64 [rows, longest], padded on the right."""
    ids = np.full((len(rows), max(map(len, rows))), pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
