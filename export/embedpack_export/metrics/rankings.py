"""How good a ranking is, and how near rankings and vectors are to those of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import MissingExtraError
from embedpack.vectors.codes import Float32
from embedpack_export.evaluation.sets.data import RetrievalSet

# Documents of a ranking that are kept: Recall@100 needs so many.
DEPTH = 100
TOP = 10
# Rank-biased overlap: the chance that a reader who sees a document goes on to the next one.
PERSISTENCE = 0.9
# Rankings compared at a time: bounds the memory.
ROWS = 64

Float64 = npt.NDArray[np.float64]
# Columns of the highest scores of each row, best first.
Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cosines:
    """Cosine of each vector with the reference's: mean, 1 % quantile, lowest; of how many."""

    count: int
    mean: float
    p1: float
    min: float


class Judge:
    """The judgements of one set, ready to be asked many times."""

    def __init__(self, judged: RetrievalSet) -> None:
        """Read the judgements.

        Raises:
            MissingExtraError: ir-measures is not installed.
        """
        try:
            import ir_measures
        except ModuleNotFoundError as missing:
            raise MissingExtraError("bench", str(missing.name)) from missing
        self._ndcg, self._recall = ir_measures.nDCG @ TOP, ir_measures.R @ DEPTH
        self._ask = ir_measures.evaluator([self._ndcg, self._recall], judged.qrels)
        self._queries, self._documents = list(judged.queries), list(judged.documents)

    def scores(self, ranks: Ranks) -> tuple[Float64, Float64]:
        """nDCG@10 and Recall@100 of every query, [queries] each, in points (100 is perfect).

        Args:
            ranks: [queries, up to 100], in the order of the set's queries and documents.
        """
        # Falling scores, one apart: the library would break ties among equal ones by the documents' names.
        run = {
            query: {self._documents[column]: float(DEPTH - place) for place, column in enumerate(row)}
            for query, row in zip(self._queries, ranks.tolist(), strict=True)
        }
        found: dict[tuple[str, str], float] = {
            (item.query_id, str(item.measure)): item.value for item in self._ask.iter_calc(run)
        }
        ndcg, recall = (
            np.array([100 * found[query, str(measure)] for query in self._queries])
            for measure in (self._ndcg, self._recall)
        )
        return ndcg, recall


def overlap(ranks: Ranks, reference: Ranks) -> float:
    """Mean share of the reference's first ten that are among the first ten."""
    shares: Sequence[float] = [
        len({*found} & {*exact}) / len(exact)
        for found, exact in zip(ranks[:, :TOP].tolist(), reference[:, :TOP].tolist(), strict=True)
    ]
    return float(np.mean(shares))


def rank_biased_overlap(ranks: Ranks, reference: Ranks) -> float:
    """Mean extrapolated rank-biased overlap of two lists of rankings of equal depth k; 1 where all are equal.

    RBO = X_k / k * p^k + (1 - p) / p * sum of X_d / d * p^d for d from 1 to k, where X_d is the number of documents
    that are among the first d of both (Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings",
    equation 30).
    """
    depth = ranks.shape[1]
    depths = np.arange(1, depth + 1)
    weights = (1 - PERSISTENCE) / PERSISTENCE * PERSISTENCE**depths / depths
    # The first depth at which a document that stands at i in one and at j in the other is in both.
    both = np.maximum(depths[:, None], depths[None, :])
    total = 0.0
    for start in range(0, len(ranks), ROWS):
        same = ranks[start : start + ROWS, :, None] == reference[start : start + ROWS, None, :]
        row, i, j = np.nonzero(same)
        joined = np.zeros((len(same), depth))
        np.add.at(joined, (row, both[i, j] - 1), 1)
        common = joined.cumsum(1)
        total += float((common @ weights + common[:, -1] / depth * PERSISTENCE**depth).sum())
    return total / len(ranks)


def spearman(human: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Spearman's rank correlation in points (100: the same order); 0 where one side has one value only.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    if len(np.unique(human)) < 2 or len(np.unique(scores)) < 2:
        return 0.0
    return 100 * float(_stats().spearmanr(human, scores).statistic)


def spearman_parts(human: npt.ArrayLike, scores: npt.ArrayLike) -> Float64:
    """What each pair adds to Spearman's correlation, in points, [n]: jackknife pseudo-values.

    n r - (n - 1) r_i, where r_i is the correlation without pair i (Tukey 1958). Their mean is the correlation but for a
    term of 1/n, and drawing them anew gives the interval that drawing the pairs and ranking again gives, in a hundredth
    of the time.

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
    """Ranks less their mean once a value is left out, a row for each of `rows`: [rows, n], 0 for the one left out."""
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


def row_cosines(vectors: Float32, reference: Float32) -> Float64:
    """Cosine of vectors [n, d], row by row, in float64: [n]."""
    found, exact = vectors.astype(np.float64), reference.astype(np.float64)
    return (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)


def cosines(values: Float64) -> Cosines:
    """What `row_cosines` found, in short."""
    return Cosines(
        count=len(values),
        mean=round(float(values.mean()), 7),
        p1=round(float(np.quantile(values, 0.01)), 7),
        min=round(float(values.min()), 7),
    )


def cosines_by(values: Float64, labels: Sequence[str]) -> dict[str, Cosines]:
    """The same for each label, in the order of the labels' names."""
    known = np.asarray(labels)
    return {str(label): cosines(values[known == label]) for label in np.unique(known)}
