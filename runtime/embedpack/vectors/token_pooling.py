"""Fewer vectors for an input: tokens with like vectors become one vector.

Rows are merged by Ward's method and each group's mean is brought back to length 1 (Clavie et al. 2024, arXiv
2409.14683). For documents, not for queries. Of MaxSim rankings with a trained projector this keeps more than windows of
neighbouring tokens do, most of all in long texts, and costs little beside the model that makes the rows.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedpack.vectors.codes import Float32, unit

# A stretch is not brought below this many rows: short texts have few to give, and take little room anyway.
FEWEST = 8
# Rows that are compared with each other, at most: the table of their distances takes 8 MB.
LONGEST = 1024


def pool_rows(vectors: Float32, alone: npt.NDArray[np.bool_], factor: int) -> Float32:
    """Vectors of the rows of one input, fewer by about `factor`, groups in the order of their first rows.

    Args:
        vectors: unit vectors, float32 [n, d].
        alone: rows that stay what they are, bool [n]: special tokens and what stands around an image. Groups do not
            reach across them.
        factor: 1 changes nothing.

    Returns:
        Unit vectors, float32 [m, d] with m <= n.
    """
    if factor == 1:
        return vectors
    edges = [*np.flatnonzero(np.diff(alone, prepend=~alone[:1])).tolist(), len(alone)]
    pooled = [
        vectors[first:last] if alone[first] else _pooled_stretch(vectors[first:last], factor)
        for first, last in pairwise(edges)
    ]
    return np.concatenate(pooled)


def _pooled_stretch(vectors: Float32, factor: int) -> Float32:
    parts = np.array_split(vectors, -(-len(vectors) // LONGEST))
    return np.concatenate([_means(part, ward_groups(part, _groups(len(part), factor))) for part in parts])


def _groups(rows: int, factor: int) -> int:
    return max(-(-rows // factor), min(rows, FEWEST))


def _means(vectors: Float32, groups: npt.NDArray[np.intp]) -> Float32:
    """The direction of each group's mean."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return unit(np.add.reduceat(vectors[order], starts, axis=0))


def ward_groups(vectors: Float32, count: int) -> npt.NDArray[np.intp]:
    """Group rows so that their squared distances to the means of their groups stay small (Ward 1963).

    The two groups whose merger adds least are merged until `count` are left; of equal ones the first.

    Args:
        vectors: float32 [n, d].
        count: number of groups, 1 to n.

    Returns:
        First row of each row's group, int [n].
    """
    rows = np.arange(len(vectors))
    groups, sizes = rows.copy(), np.ones(len(rows))
    added = 1.0 - (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(added, np.inf)
    nearest = added.argmin(axis=1)
    least = added[rows, nearest]
    for _ in range(len(rows) - count):
        first = int(least.argmin())
        kept, gone = sorted((first, int(nearest[first])))
        # Lance and Williams 1967: what merging the new group with each other one would add.
        both = (sizes + sizes[kept]) * added[kept] + (sizes + sizes[gone]) * added[gone] - sizes * added[kept, gone]
        added[kept] = added[:, kept] = both / (sizes + sizes[kept] + sizes[gone])
        added[gone] = added[:, gone] = np.inf
        sizes[kept] += sizes[gone]
        groups[groups == gone] = kept
        # No group comes nearer by a merger, so only those that had one of the two as the nearest look again.
        again = (nearest == kept) | (nearest == gone)
        again[kept] = True
        nearest[again] = added[again].argmin(axis=1)
        least[again] = added[again, nearest[again]]
        least[gone] = np.inf
    return groups
