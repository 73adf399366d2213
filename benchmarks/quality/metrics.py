"""What benchmarks of codes and weights judge rankings by; the measures are those of `embedpack bench`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack.vectors.codes import Float32
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.metrics.bootstrap import RESAMPLES, Interval, interval, resampled_means
from embedpack_export.metrics.cosines import CosineSummary, row_cosines, summarise_cosines
from embedpack_export.metrics.rankings import Float64, Ranks


def ndcg_at_10(ranks: Ranks, judged: RetrievalSet) -> Float64:
    """nDCG@10 of every query, in points (100 is perfect).

    Raises:
        MissingExtraError: ir-measures is not installed.
    """
    return QrelsScorer(judged).scores(ranks)[0]


def ratio_95(pairs: Sequence[tuple[Float64, Float64]], seed: int) -> Interval:
    """The 95 % interval of the mean over sets of mean(found) / mean(exact), queries drawn anew within each set.

    Args:
        pairs: found and exact figures of the queries of each set.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    for found, exact in pairs:
        means = resampled_means(np.stack([found, exact], axis=1), rng)
        total += means[:, 0] / means[:, 1]
    return interval(total / len(pairs))


def cosines(vectors: Float32, reference: Float32) -> CosineSummary:
    """Cosines of vectors [n, d], row by row, computed in float64."""
    return summarise_cosines(row_cosines(vectors, reference))
