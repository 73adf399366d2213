"""How close a variant comes to the same weights in float32, on the calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.pack.manifest import Accuracy, TokenAccuracy
from embedpack_export.arrays import Float32
from embedpack_export.metrics.cosines import row_cosines, summarise_cosines
from embedpack_export.planning.settings import ReferenceKind

# Of cosines in the manifest.
DIGITS = 6

REFERENCE: ReferenceKind = "fp32 graph"


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
    single = summarise_cosines(_cosines([item.single for item in exact], [item.single for item in found]), DIGITS)
    tokens = [item.tokens for item in exact if item.tokens is not None]
    same = [item.tokens for item in found if item.tokens is not None]
    return Accuracy(
        reference=REFERENCE,
        texts=single.count,
        cosine_mean=single.mean,
        cosine_p1=single.p1,
        cosine_min=single.min,
        tokens=_token_accuracy(tokens, same) if tokens else None,
    )


def _token_accuracy(exact: Sequence[Float32], found: Sequence[Float32]) -> TokenAccuracy:
    cosines = summarise_cosines(_cosines(exact, found), DIGITS)
    return TokenAccuracy(tokens=cosines.count, cosine_mean=cosines.mean, cosine_p1=cosines.p1)


def _cosines(exact: Sequence[Float32], found: Sequence[Float32]) -> npt.NDArray[np.float64]:
    return row_cosines(np.concatenate(exact), np.concatenate(found))
