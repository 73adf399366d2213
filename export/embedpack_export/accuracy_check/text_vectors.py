"""Vectors of the texts of the accuracy check, and the scores by which they rank each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack import MultiEmbeddings, maxsim
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import unit
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack_export.planning.plan import ExportPlan

# Some hundred tokens each: enough for the mean and the 1 % quantile of their cosines.
MAX_MULTI_VECTOR_TEXTS = 64


@dataclass(frozen=True)
class TextVectors:
    """Vectors of texts.

    Attributes:
        single: single vectors [texts, dimensions]; None: the model has none.
        multi: multi-vectors of the texts of `multi_vector_rows`, of a model without single vectors all of them; None:
            the model has none.
    """

    single: Float32 | None
    multi: Sequence[Float32] | None

    @property
    def means(self) -> Float32:
        """One vector for each text, [texts, dimensions]: the single one, or the direction of the mean of its tokens."""
        if self.single is not None:
            return self.single
        assert self.multi is not None
        return unit(np.stack([rows.mean(axis=0) for rows in self.multi]))

    def scores(self, plan: ExportPlan) -> npt.NDArray[np.floating]:
        """Scores of all texts as queries for all texts [texts, texts]: by similarity, or by MaxSim."""
        if self.single is not None:
            factors = ranking_factors(plan, self.single).astype(np.float64)
            return factors @ factors.T
        assert self.multi is not None
        joined = joined_multi(self.multi)
        return maxsim(joined, joined)


def joined_multi(rows: Sequence[Float32], space: str = "") -> MultiEmbeddings:
    """Multi-vectors of texts as MultiEmbeddings in float32."""
    return MultiEmbeddings(np.concatenate(rows), offsets_of(list(map(len, rows))), "float32", rows[0].shape[1], space)


def ranking_factors(plan: ExportPlan, vectors: Float32) -> Float32:
    """Vectors whose dot products rank texts as the model's similarity does."""
    assert plan.single is not None
    return vectors if plan.single.normalize or plan.single.similarity == "dot" else unit(vectors)


def multi_vector_rows(texts: int) -> list[int]:
    """Evenly spaced row numbers of the texts whose multi-vectors are compared."""
    rows: list[int] = np.linspace(0, texts - 1, min(texts, MAX_MULTI_VECTOR_TEXTS)).astype(int).tolist()
    return rows
