"""The k smallest of many distances without a full sort; ties go to the lower index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
# Smaller is nearer: Hamming distances, or negated scores. No value is NaN.
Distances = npt.NDArray[np.uint32] | npt.NDArray[np.float32]


def smallest(distances: Distances, k: int) -> Int64:
    """Indices, int64 [min(k, n)], of the k smallest of n distances in the order of a stable sort; k is at least 1."""
    indices = np.arange(len(distances))
    if k < len(distances):
        # Only the k-th value is taken from the partition, which leaves the order of ties undefined.
        last = np.partition(distances, k - 1)[k - 1]
        below = np.flatnonzero(distances < last)
        indices = np.concatenate([below, np.flatnonzero(distances == last)[: k - len(below)]])
    return indices[np.argsort(distances[indices], kind="stable")]


class Nearest:
    """The k smallest of all distances added so far, in blocks, the smallest first.

    `indices`, int64 [min(k, number added)], are their positions among all distances.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self.indices: Int64 = np.empty(0, np.int64)
        self.distances: Distances = np.empty(0, np.float32)

    def add(self, distances: Distances, start: int) -> None:
        """Add the next block of distances, [n]; `start` is the index of its first one among all."""
        if not len(self.indices):
            # Not concatenated with an empty array, so the distances keep their dtype.
            chosen = smallest(distances, self._k)
            self.indices, self.distances = start + chosen, distances[chosen]
            return
        if len(self.indices) < self._k:
            candidates = np.arange(len(distances))
        else:
            # Drops nearly all. A distance equal to the largest present one has a higher index, so it is dropped, too.
            candidates = np.flatnonzero(distances < self.distances[-1])
        if not len(candidates):
            return
        indices = np.concatenate([self.indices, start + candidates])
        merged: Distances = np.concatenate([self.distances, distances[candidates]])
        # Earlier distances come first, so ties stay in the order of their indices.
        chosen = smallest(merged, self._k)
        self.indices, self.distances = indices[chosen], merged[chosen]
