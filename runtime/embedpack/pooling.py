"""Fewer vectors for an input: neighbouring tokens become one vector.

Rows that follow each other are averaged in windows of equal size and brought back to length 1. For documents, not for
queries. Neighbours in the text are pooled, not neighbours in the vector space: of MaxSim rankings with the last hidden
states of all-MiniLM-L6-v2, windows kept more than hierarchical clustering (Clavie et al. 2024, arXiv 2409.14683) or
k-means did, and they cost nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedpack.codes import Float32, unit

# A stretch is not brought below this many rows: short texts have few to give, and take little room anyway.
FEWEST = 8


def pool_rows(vectors: Float32, alone: npt.NDArray[np.bool_], factor: int) -> Float32:
    """Vectors of the rows of one input, fewer by about `factor`, in their order.

    Args:
        vectors: unit vectors, float32 [n, d].
        alone: rows that stay what they are, bool [n]: special tokens and what stands around an image. Windows do not
            reach across them.
        factor: 1 changes nothing.

    Returns:
        Unit vectors, float32 [m, d] with m <= n.
    """
    if factor == 1:
        return vectors
    starts = window_starts(alone, factor)
    return unit(np.add.reduceat(vectors, starts, axis=0))


def window_starts(alone: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.intp]:
    """First row of each window, ascending."""
    edges = np.flatnonzero(np.diff(alone, prepend=~alone[:1]))
    starts = [
        np.arange(first, last) if alone[first] else first + _even(last - first, factor)
        for first, last in zip(edges, [*edges[1:], len(alone)], strict=True)
    ]
    return np.concatenate(starts)


def _even(rows: int, factor: int) -> npt.NDArray[np.intp]:
    """Starts of windows of nearly equal size that rows fall into."""
    windows = max(-(-rows // factor), min(rows, FEWEST))
    return -(-np.arange(windows) * rows // windows)
