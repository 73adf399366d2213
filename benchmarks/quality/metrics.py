"""What benchmarks of codes and weights judge rankings by; the measures are those of `embedpack bench`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack.vectors.codes import Float32
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.metrics import rankings as measures
from embedpack_export.metrics.bootstrap import RESAMPLES, interval
from embedpack_export.metrics.rankings import TOP, Cosines, Float64, Judge, Ranks, overlap

__all__ = ["CHUNK", "RESAMPLES", "Cosines", "Float64", "Ranks", "best", "cosines", "ndcg_at_10", "overlap", "ratio_95"]

# Resamples drawn together: bounds the memory.
CHUNK = 500


def best(scores: Float32) -> Ranks:
    """Columns of the ten highest scores of each row, best first; of equal ones the first column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]


def ndcg_at_10(ranks: Ranks, judged: RetrievalSet) -> Float64:
    """nDCG@10 of every query, in points (100 is perfect).

    Raises:
        MissingExtraError: ir-measures is not installed.
    """
    return Judge(judged).scores(ranks)[0]


def ratio_95(pairs: Sequence[tuple[Float64, Float64]], seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean over sets of mean(found) / mean(exact), queries drawn anew within each set.

    Args:
        pairs: found and exact figures of the queries of each set.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    for found, exact in pairs:
        count = len(found)
        for start in range(0, RESAMPLES, CHUNK):
            drawn = rng.integers(count, size=(CHUNK, count))
            total[start : start + CHUNK] += found[drawn].mean(1) / exact[drawn].mean(1)
    return interval(total / len(pairs))


def cosines(vectors: Float32, reference: Float32) -> Cosines:
    """Cosines of vectors [n, d], row by row, computed in float64."""
    return measures.cosines(measures.row_cosines(vectors, reference))
