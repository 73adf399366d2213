"""The k smallest of many distances, of equal ones the first, without sorting them all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
# Smaller is nearer: Hamming distances, or scores with the sign changed. None of them is NaN.
Distances = npt.NDArray[np.uint32] | npt.NDArray[np.float32]


def smallest(distances: Distances, k: int) -> Int64:
    """Where the k smallest are, in the order of a stable sort; all of them where there are not more than k.

    Args:
        distances: [n].
        k: at least 1.

    Returns:
        int64 [min(k, n)].
    """
    places = np.arange(len(distances))
    if k < len(distances):
        # Only the value of the k-th is taken from the partition: which of its equals stand before it is left to chance.
        last = np.partition(distances, k - 1)[k - 1]
        below = np.flatnonzero(distances < last)
        places = np.concatenate([below, np.flatnonzero(distances == last)[: k - len(below)]])
    return places[np.argsort(distances[places], kind="stable")]


class Nearest:
    """The k smallest of the distances seen so far, which arrive in blocks.

    Attributes:
        indices: where they stood among all, int64 [min(k, seen)], the smallest distance first.
        distances: the distances themselves.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self.indices: Int64 = np.empty(0, np.int64)
        self.distances: Distances = np.empty(0, np.float32)

    def add(self, distances: Distances, start: int) -> None:
        """Take the next block, [n], whose first distance stands at `start`."""
        if not len(self.indices):
            # Not merged with nothing, so the distances keep their type.
            chosen = smallest(distances, self._k)
            self.indices, self.distances = start + chosen, distances[chosen]
            return
        if len(self.indices) < self._k:
            places = np.arange(len(distances))
        else:
            # Nearly all are refused here. One that equals the last kept comes after it, so it is refused too.
            places = np.flatnonzero(distances < self.distances[-1])
        if not len(places):
            return
        indices = np.concatenate([self.indices, start + places])
        merged: Distances = np.concatenate([self.distances, distances[places]])
        # The kept ones stand in front, so equal distances stay in the order of their indices.
        chosen = smallest(merged, self._k)
        self.indices, self.distances = indices[chosen], merged[chosen]
