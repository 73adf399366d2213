"""How good a ranking is, and how far vectors are from the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.retrieval_set import RetrievalSet
from embedpack import MissingExtraError
from embedpack.codes import Float32

DEPTH = 10
RESAMPLES = 10_000
# Resamples drawn together: bounds the memory.
CHUNK = 500

Float64 = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Cosines:
    """Cosine of each vector with the reference's: mean, 1 % quantile, lowest."""

    mean: float
    p1: float
    min: float


def best(scores: Float32) -> Ranks:
    """Columns of the ten highest scores of each row, best first; of equal ones the first column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]


def ndcg_at_10(ranks: Ranks, judged: RetrievalSet) -> Float64:
    """nDCG@10 of every query, in points (100 is perfect).

    Raises:
        MissingExtraError: ir-measures is not installed.
    """
    try:
        import ir_measures
    except ModuleNotFoundError as missing:
        raise MissingExtraError("bench", str(missing.name)) from missing
    documents = list(judged.documents)
    # Falling scores, one apart: the library would break ties among equal ones by the documents' names.
    run = {
        query: {documents[column]: float(DEPTH - place) for place, column in enumerate(row)}
        for query, row in zip(judged.queries, ranks, strict=True)
    }
    measured = ir_measures.iter_calc([ir_measures.nDCG @ DEPTH], judged.qrels, run)
    values = {item.query_id: item.value for item in measured}
    return np.array([100 * values[query] for query in judged.queries])


def interval_95(differences: Float64, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences: queries drawn anew, with replacement, 10,000 times."""
    rng = np.random.default_rng(seed)
    count = len(differences)
    means = [differences[rng.integers(count, size=(CHUNK, count))].mean(1) for _ in range(0, RESAMPLES, CHUNK)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


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
    low, high = np.quantile(total / len(pairs), (0.025, 0.975))
    return float(low), float(high)


def overlap(ranks: Ranks, reference: Ranks) -> float:
    """Mean share of the reference's first ten that are among the first ten."""
    shares: Sequence[float] = [len({*a} & {*b}) / len(b) for a, b in zip(ranks, reference, strict=True)]
    return float(np.mean(shares))


def cosines(vectors: Float32, reference: Float32) -> Cosines:
    """Cosines of vectors [n, d], row by row, computed in float64."""
    found, exact = vectors.astype(np.float64), reference.astype(np.float64)
    values = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    return Cosines(
        mean=round(float(values.mean()), 7),
        p1=round(float(np.quantile(values, 0.01)), 7),
        min=round(float(values.min()), 7),
    )
