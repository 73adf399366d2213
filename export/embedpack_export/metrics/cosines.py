"""Cosines of vectors with those of the reference, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack_export.arrays import Float64


@dataclass(frozen=True)
class CosineSummary:
    """Cosines of vectors with the reference's."""

    count: int
    # Mean, 1 % quantile and lowest cosine.
    mean: float
    p1: float
    min: float


def row_cosines(vectors: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> Float64:
    """Cosine of each row of [n, d] with the same row of the reference, computed in float64: [n]."""
    left, right = vectors.astype(np.float64), reference.astype(np.float64)
    return np.asarray((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1))


def summarise_cosines(cosines: Float64, digits: int = 7) -> CosineSummary:
    """Summary of `row_cosines`, rounded to some digits."""
    return CosineSummary(
        count=len(cosines),
        mean=round(float(cosines.mean()), digits),
        p1=round(float(np.quantile(cosines, 0.01)), digits),
        min=round(float(cosines.min()), digits),
    )


def summarise_by_label(cosines: Float64, labels: Sequence[str]) -> dict[str, CosineSummary]:
    """A summary for each label, sorted by label."""
    names = np.asarray(labels)
    return {str(name): summarise_cosines(cosines[names == name]) for name in np.unique(names)}
