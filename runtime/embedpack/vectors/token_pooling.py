"""Token pooling: merge similar token vectors of a document (Clavie et al. 2024, arXiv 2409.14683).

Rows are grouped by Ward's method, and the mean of each group is normalized. Use it for documents, not for queries. With
a trained projector it preserves MaxSim rankings better than pooling of neighbouring tokens, most of all in long texts,
and it takes little time compared with the model.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import unit

# A run of rows is not pooled to fewer rows: short texts lose more by pooling, and take little space anyway.
MIN_ROWS = 8
# Largest number of rows that are compared with each other: their distance matrix takes 8 MB.
MAX_ROWS = 1024


def pool_rows(vectors: Float32, unpooled: npt.NDArray[np.bool_], factor: int) -> Float32:
    """Pool unit vectors, float32 [n, d], of one input to about 1 / `factor` of them, in the order of their first rows.

    Rows marked in `unpooled`, bool [n], are not pooled, and groups do not extend across them: special tokens and tokens
    around an image.
    """
    if factor == 1:
        return vectors
    edges = [*np.flatnonzero(np.diff(unpooled, prepend=~unpooled[:1])).tolist(), len(unpooled)]
    pooled = [
        vectors[first:last] if unpooled[first] else _pool_run(vectors[first:last], factor)
        for first, last in pairwise(edges)
    ]
    return np.concatenate(pooled)


def _pool_run(vectors: Float32, factor: int) -> Float32:
    means = []
    for part in np.array_split(vectors, -(-len(vectors) // MAX_ROWS)):
        groups = ward_groups(part, max(-(-len(part) // factor), min(len(part), MIN_ROWS)))
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        means.append(unit(np.add.reduceat(part[order], starts, axis=0)))
    return np.concatenate(means)


def ward_groups(vectors: Float32, count: int) -> npt.NDArray[np.intp]:
    """Group rows by Ward's method (Ward 1963): minimize the squared distances to the means of the groups.

    The two groups whose merger adds least are merged until `count` remain; ties go to the first. The result, int [n],
    is the first row of each row's group.
    """
    rows = np.arange(len(vectors))
    groups, sizes = rows.copy(), np.ones(len(rows))
    costs = 1.0 - (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(costs, np.inf)
    nearest = costs.argmin(axis=1)
    lowest = costs[rows, nearest]
    for _ in range(len(rows) - count):
        first = int(lowest.argmin())
        target, source = sorted((first, int(nearest[first])))
        # Cost of merging the new group with each other one (Lance and Williams 1967).
        weighted = (
            (sizes + sizes[target]) * costs[target]
            + (sizes + sizes[source]) * costs[source]
            - sizes * costs[target, source]
        )
        costs[target] = costs[:, target] = weighted / (sizes + sizes[target] + sizes[source])
        costs[source] = costs[:, source] = np.inf
        sizes[target] += sizes[source]
        groups[groups == source] = target
        # A merger brings no groups closer together, so only groups whose nearest was one of the two have a new one.
        stale = (nearest == target) | (nearest == source)
        stale[target] = True
        nearest[stale] = costs[stale].argmin(axis=1)
        lowest[stale] = costs[stale, nearest[stale]]
        lowest[source] = np.inf
    return groups
