"""Agreement of the scores of two models on the documents of several queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# The last digits of scores depend on the number of threads.
SCORE_DIGITS = 6


@dataclass(frozen=True)
class Agreement:
    """Scores compared with those of a reference."""

    queries: int
    pairs: int
    largest_difference: float
    relative_difference: float  # root of the mean square difference over the reference's standard deviation
    kendall: float  # mean over the queries


def agreement(reference: Sequence[npt.NDArray[np.floating]], scores: Sequence[npt.NDArray[np.floating]]) -> Agreement:
    """Compare the scores of the documents of each query, [documents]."""
    exact, found = (np.concatenate(each).astype(np.float64) for each in (reference, scores))
    differences, spread = np.abs(found - exact), float(exact.std())
    error = float(np.sqrt(np.square(differences).mean()))
    return Agreement(
        queries=len(reference),
        pairs=len(exact),
        largest_difference=float(differences.max()),
        relative_difference=error / spread if spread else float(error > 0),
        kendall=float(np.mean([kendall_tau(a, b) for a, b in zip(reference, scores, strict=True)])),
    )


def kendall_tau(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Kendall's tau-b of two lists of scores [n]: 1 for the same order (Kendall 1945, The treatment of ties).

    Two lists that are both constant have the same order.
    """
    a, b = (np.sign(np.subtract.outer(each, each)) for each in (_rounded(one), _rounded(other)))
    size = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    if size:
        return float((a * b).sum()) / size
    return float(not a.any() and not b.any())


def _rounded(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.asarray(scores, np.float64).round(SCORE_DIGITS)
