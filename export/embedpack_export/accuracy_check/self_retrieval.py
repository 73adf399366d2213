"""Self-retrieval: the loss of a ranking without relevance judgements.

Every text is a query for all others. The gain of a text is its similarity to the query under the reference, less the
median of that query's similarities, and 0 below the median. nDCG@10 with these gains (linear gains, discount
1 / log2(rank + 1), Järvelin and Kekäläinen 2002) is 1 for the reference. The loss of a variant, in points:

    loss = 100 * (1 - mean over queries of DCG@10(variant's ranking) / DCG@10(reference's ranking))

Graded gains make the loss insensitive to swaps of texts that the reference finds equally near, and sensitive to a near
text that drops out of the first ten. They begin at the median, because the similarities of many models lie in a narrow
band far above 0: with gains from 0, a random ranking would lose only a few points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.metrics.bootstrap import Interval, interval, resampled_means
from embedpack_export.metrics.rankings import Ranks, top_columns, top_k_overlap

# With fewer texts the first ten are nearly all of them, and one swap decides the loss.
MIN_TEXTS = 16
# With fewer queries of a reranker their mean is mostly chance.
MIN_QUERIES = 4
# The last digits of similarities depend on the number of threads.
SIMILARITY_DIGITS = 6
LOSS_DIGITS = 4


@dataclass(frozen=True)
class RankingLoss:
    """A ranking compared with the reference's."""

    loss: float  # points of nDCG@10
    interval: Interval  # 95 % interval of the loss, over resamples of the queries
    overlap: float  # mean share of the reference's first ten texts that are among the first ten


class ReferenceRanking:
    """Rankings of texts among themselves by the reference."""

    def __init__(self, scores: npt.NDArray[np.floating], seed: int = 0) -> None:
        """Rank MIN_TEXTS or more texts by the reference's scores, [queries, texts].

        `seed` is that of the intervals.
        """
        assert len(scores) >= MIN_TEXTS, len(scores)
        similarities = _without_self(scores)
        self._gains = np.maximum(similarities - np.median(similarities, axis=1, keepdims=True), 0)
        self._ranks = top_columns(similarities)
        self._ideal = _dcg(self._gains, self._ranks)
        # Equal texts have no gains: every ranking of them is right.
        self._scale = np.maximum(self._ideal, 10.0**-SIMILARITY_DIGITS)
        self._seed = seed

    def compare(self, scores: npt.NDArray[np.floating]) -> RankingLoss:
        """Loss of the ranking by a variant's scores, [queries, texts]."""
        ranks = top_columns(_without_self(scores))
        losses = 100 * (self._ideal - _dcg(self._gains, ranks)) / self._scale
        resampled = resampled_means(losses[:, None], np.random.default_rng(self._seed))[:, 0]
        return RankingLoss(
            loss=_rounded(losses.mean()),
            interval=Interval(*map(_rounded, interval(resampled))),
            overlap=round(top_k_overlap(ranks, self._ranks), SIMILARITY_DIGITS),
        )


def group_ranking_loss(reference: Sequence[Float32], scores: Sequence[Float32], seed: int = 0) -> RankingLoss | None:
    """Loss of rankings of the documents of each query, [documents], by other scores; None: too few queries.

    The gain of a document is its score under the reference less the median of the query's, as for self-retrieval.
    """
    if len(reference) < MIN_QUERIES:
        return None
    losses, overlaps = [], []
    for exact, found in zip(reference, scores, strict=True):
        rounded, others = (np.asarray(each, np.float64).round(SIMILARITY_DIGITS)[None] for each in (exact, found))
        gains = np.maximum(rounded - np.median(rounded), 0)
        ideal, ranks = top_columns(rounded), top_columns(others)
        best = _dcg(gains, ideal)
        losses.append(100 * (best - _dcg(gains, ranks)) / np.maximum(best, 10.0**-SIMILARITY_DIGITS))
        overlaps.append(top_k_overlap(ranks, ideal))
    resampled = resampled_means(np.stack(losses), np.random.default_rng(seed))[:, 0]
    return RankingLoss(
        loss=_rounded(np.mean(losses)),
        interval=Interval(*map(_rounded, interval(resampled))),
        overlap=round(float(np.mean(overlaps)), SIMILARITY_DIGITS),
    )


def _without_self(scores: npt.NDArray[np.floating]) -> Float64:
    """Each row without the score of the query for itself: [n, n] to [n, n - 1], rounded."""
    count = len(scores)
    others = scores[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    return np.asarray(others, np.float64).round(SIMILARITY_DIGITS)


def _dcg(gains: Float64, ranks: Ranks) -> Float64:
    """Discounted cumulative gain of each row."""
    discounts = 1 / np.log2(np.arange(ranks.shape[1]) + 2)
    return np.asarray(np.take_along_axis(gains, ranks, axis=1) @ discounts, np.float64)


def _rounded(value: np.floating | float) -> float:
    # Sums that differ in their last digit may give -0.0.
    return round(float(value), LOSS_DIGITS) + 0.0
