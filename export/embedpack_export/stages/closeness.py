"""How close a variant comes to the same weights in float32, on the calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.pack.manifest import Accuracy, TokenAccuracy
from embedpack_export.arrays import Float32
from embedpack_export.planning.calibration_texts import REFERENCE_GRAPH

Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vectors:
    """What a graph gives for its inputs.

    Attributes:
        single: single vectors of the calibration inputs, [items, dimensions].
        tokens: vectors of all their tokens, [tokens, dimensions]; None: there are none.
        golden: single vectors of the golden inputs.
    """

    single: Float32
    tokens: Float32 | None
    golden: Float32

    def golden_lists(self) -> list[list[float]]:
        """The golden vectors as the pack keeps them."""
        return [[round(float(value), 6) for value in vector] for vector in self.golden]


def accuracy(exact: Sequence[Vectors], found: Sequence[Vectors]) -> Accuracy:
    """Figures of the manifest, over one or several tasks."""
    single = _cosines([item.single for item in exact], [item.single for item in found])
    tokens = [item.tokens for item in exact if item.tokens is not None]
    same = [item.tokens for item in found if item.tokens is not None]
    return Accuracy(
        reference=REFERENCE_GRAPH,
        texts=len(single),
        cosine_mean=_rounded(single.mean()),
        cosine_p1=_rounded(np.quantile(single, 0.01)),
        cosine_min=_rounded(single.min()),
        tokens=_token_accuracy(_cosines(tokens, same)) if tokens else None,
    )


def _token_accuracy(cosines: Float64) -> TokenAccuracy:
    return TokenAccuracy(
        tokens=len(cosines), cosine_mean=_rounded(cosines.mean()), cosine_p1=_rounded(np.quantile(cosines, 0.01))
    )


def _cosines(exact: Sequence[Float32], found: Sequence[Float32]) -> Float64:
    left, right = np.concatenate(exact).astype(np.float64), np.concatenate(found).astype(np.float64)
    return np.asarray((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1))


def _rounded(value: np.floating[Any]) -> float:
    return round(float(value), 6)
