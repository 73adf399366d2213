"""Agreement of rankings with those of the reference, and Spearman's correlation with human scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import MissingExtraError
from embedpack_export.arrays import Float64

# Documents of a ranking: enough for Recall@100.
DEPTH = 100
TOP = 10
# Rank-biased overlap: the probability that a reader goes on from one document to the next.
PERSISTENCE = 0.9
# Rankings compared at a time: bounds the memory.
ROWS = 64

# Column numbers of the highest scores of each row, best first: [queries, depth].
Ranks = npt.NDArray[np.int64]


def top_columns(scores: npt.NDArray[np.floating], k: int = TOP) -> Ranks:
    """Column numbers of the k highest scores of each row, best first, ties by column: [rows, min(k, columns)]."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def top_k_overlap(ranks: Ranks, reference: Ranks, k: int = TOP) -> float:
    """Mean share of the reference's first k documents that are among the first k of the ranking."""
    shares = [
        len({*row} & {*exact}) / len(exact)
        for row, exact in zip(ranks[:, :k].tolist(), reference[:, :k].tolist(), strict=True)
    ]
    return float(np.mean(shares))


def rank_biased_overlap(ranks: Ranks, reference: Ranks) -> float:
    """Mean extrapolated rank-biased overlap of two lists of rankings of equal depth k; 1 for equal rankings.

    RBO = X_k / k * p^k + (1 - p) / p * sum of X_d / d * p^d for d from 1 to k, where X_d is the number of documents
    that are among the first d of both (Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings",
    equation 30).
    """
    depth = ranks.shape[1]
    depths = np.arange(1, depth + 1)
    weights = (1 - PERSISTENCE) / PERSISTENCE * PERSISTENCE**depths / depths
    # A document at rank i of one ranking and rank j of the other is common to both from depth max(i, j) on.
    first_common = np.maximum(depths[:, None], depths[None, :])
    total = 0.0
    for start in range(0, len(ranks), ROWS):
        same = ranks[start : start + ROWS, :, None] == reference[start : start + ROWS, None, :]
        row, i, j = np.nonzero(same)
        joined = np.zeros((len(same), depth))
        np.add.at(joined, (row, first_common[i, j] - 1), 1)
        common = joined.cumsum(1)
        total += float((common @ weights + common[:, -1] / depth * PERSISTENCE**depth).sum())
    return total / len(ranks)


def spearman(human: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Spearman's rank correlation in points (100: the same order); 0 if all values of one side are equal.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    if len(np.unique(human)) < 2 or len(np.unique(scores)) < 2:
        return 0.0
    return 100 * float(_stats().spearmanr(human, scores).statistic)


def spearman_parts(human: npt.ArrayLike, scores: npt.ArrayLike) -> Float64:
    """Jackknife pseudo-values of Spearman's correlation, one for each pair, in points, [n].

    n r - (n - 1) r_i, where r_i is the correlation without pair i (Tukey 1958). Their mean is the correlation up to a
    term of 1/n, and resampling them gives the interval that resampling the pairs and ranking again gives, in a
    hundredth of the time.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    first, second = np.asarray(human, np.float64), np.asarray(scores, np.float64)
    count = len(first)
    without = np.empty(count)
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        a, b = _ranks_without(first, rows), _ranks_without(second, rows)
        scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
        without[rows] = np.divide((a * b).sum(1), scale, out=np.zeros(len(rows)), where=scale > 0)
    return count * spearman(first, second) - 100 * (count - 1) * without


def _ranks_without(values: Float64, rows: npt.NDArray[np.intp]) -> Float64:
    """Centered ranks of the values without one of them, a row for each of `rows`: [rows, n], 0 for the one left out."""
    left, others = values[rows, None], values[None, :]
    ranks = _stats().rankdata(values) - (others > left) - (others == left) / 2 - len(values) / 2
    ranks[np.arange(len(rows)), rows] = 0
    return ranks


def _stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as missing:
        raise MissingExtraError("bench", str(missing.name)) from missing
    return stats
