"""Ranking loss: what rounding costs a search, told by the reference itself, without judged queries.

An export has texts, but nobody who judged which of them answer which. So each text is a query against all others, and
what a judge would say is put by the reference: another text gains as much as its similarity lies above the median of
that query's similarities, and nothing below the median. nDCG@10 with these gains (linear gains, discount 1 / log2(rank
+ 1), Järvelin & Kekäläinen 2002) is 1 for the reference; what a variant falls short of it is its loss, in points:

    loss = 100 * (1 - mean over queries of DCG@10(variant's ranking) / DCG@10(reference's ranking))

Gains that follow the similarities make the figure insensitive to what does not matter (two texts that the reference
finds equally near may change places) and sensitive to what does (a near text drops out of the ten). They begin at the
median, not at 0, because the similarities of many models all lie in a narrow band far above 0: counted from 0, a
random ranking would lose only a few points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.vectors.codes import Float32

DEPTH = 10
# With fewer texts the best ten are nearly all of them, and one swap decides the figure.
FEWEST_TEXTS = 16
RESAMPLES = 10_000
# Similarities are sums of floats, whose last digits hang on the number of threads.
DIGITS = 6
LOSS_DIGITS = 4

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """How a ranking compares with the reference's.

    Attributes:
        loss: in points of nDCG@10.
        interval: of the loss, 95 %, by drawing the queries anew.
        overlap: mean share of the reference's first ten that are among the first ten.
    """

    loss: float
    interval: tuple[float, float]
    overlap: float


class Judge:
    """The reference's ranking of texts among themselves."""

    def __init__(self, reference: Float32, seed: int = 0) -> None:
        """Take unit vectors [texts, dimensions]; there are FEWEST_TEXTS or more of them."""
        assert len(reference) >= FEWEST_TEXTS, len(reference)
        similarities = _others(reference.astype(np.float64) @ reference.astype(np.float64).T)
        self._gains = np.maximum(similarities - np.median(similarities, axis=1, keepdims=True), 0)
        self._best = _first_ten(similarities)
        self._ideal = _discounted(self._gains, self._best)
        # Of texts that are all alike every ranking is right.
        self._weight = np.maximum(self._ideal, 10.0**-DIGITS)
        self._seed = seed

    def compare(self, scores: npt.NDArray[np.floating]) -> Ranking:
        """Judge the scores, [texts, texts], that a variant gives each text for each query."""
        found = _first_ten(_others(scores))
        losses = 100 * (self._ideal - _discounted(self._gains, found)) / self._weight
        low, high = self._interval(losses)
        return Ranking(
            loss=_rounded(losses.mean()), interval=(low, high), overlap=round(_shared(found, self._best), DIGITS)
        )

    def _interval(self, losses: Float64) -> tuple[float, float]:
        rng = np.random.default_rng(self._seed)
        # How often each query is drawn: one multinomial draw says as much as len(losses) draws of a query.
        counts = rng.multinomial(len(losses), np.full(len(losses), 1 / len(losses)), size=RESAMPLES)
        low, high = np.quantile(counts @ losses / len(losses), (0.025, 0.975))
        return _rounded(low), _rounded(high)


def _others(scores: npt.NDArray[np.floating]) -> Float64:
    """Each row without the score of the query itself: [n, n] to [n, n - 1], rounded."""
    count = len(scores)
    others = scores[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    return np.asarray(others, np.float64).round(DIGITS)


def _first_ten(scores: Float64) -> npt.NDArray[np.intp]:
    """Columns of the ten highest scores of each row, best first; of equal ones the first column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]


def _discounted(gains: Float64, ranks: npt.NDArray[np.intp]) -> Float64:
    """DCG of each row."""
    discounts = 1 / np.log2(np.arange(ranks.shape[1]) + 2)
    return np.asarray(np.take_along_axis(gains, ranks, axis=1) @ discounts, np.float64)


def _shared(found: npt.NDArray[np.intp], best: npt.NDArray[np.intp]) -> float:
    shares: Sequence[float] = [len({*a} & {*b}) / len(b) for a, b in zip(found.tolist(), best.tolist(), strict=True)]
    return float(np.mean(shares))


def _rounded(value: np.floating) -> float:
    # No -0.0 where sums differ in their last digit.
    return round(float(value), LOSS_DIGITS) + 0.0
