"""Closeness of a variant's vectors to those of the same weights in float32, on the calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedpack.pack.accuracy_records import Accuracy, Cosines, TokenCosines
from embedpack.vectors.arrays import Float32
from embedpack_export.metrics.cosines import CosineSummary, row_cosines, summarise_cosines
from embedpack_export.planning.settings import ReferenceKind

# Digits of cosines in the manifest.
DIGITS = 6

REFERENCE: ReferenceKind = "fp32 graph"


@dataclass(frozen=True)
class Vectors:
    """Vectors of a task's inputs, all of length 1."""

    inputs: int  # number of calibration inputs
    # Single vectors of the calibration inputs, float32 [inputs, dimensions]; None without single vectors.
    single: Float32 | None
    # Multi-vectors of these inputs, joined, float32 [tokens, dimensions]; None without multi-vectors.
    tokens: Float32 | None
    golden: Sequence[Float32]  # golden vectors, float32 [values] each, see `embedpack.engine.golden`
    images: int = 0  # number of the last single vectors that a vision graph gives

    def with_images(self, images: Sequence[Float32]) -> Vectors:
        """The vectors with those of images [1, dimensions] behind them, the last of which is golden."""
        assert self.single is not None
        *calibration, golden = images
        single = np.concatenate([self.single, *calibration])
        golden_vectors = [*self.golden, golden[0]]
        return replace(self, inputs=len(single), single=single, golden=golden_vectors, images=len(calibration))

    def golden_lists(self) -> list[list[float]]:
        """Golden vectors as in the pack, rounded to six digits."""
        return [[round(float(value), 6) for value in vector] for vector in self.golden]


def rounding_cosines(exact: Sequence[Vectors], written: Sequence[Vectors]) -> Accuracy:
    """Cosines between exact vectors and those of a variant, for one or several tasks, as the manifest records them."""
    single = [task.single for task in exact if task.single is not None]
    written_single = [task.single for task in written if task.single is not None]
    tokens = [task.tokens for task in exact if task.tokens is not None]
    written_tokens = [task.tokens for task in written if task.tokens is not None]
    return Accuracy(
        reference=REFERENCE,
        inputs=sum(task.inputs for task in exact),
        single=recorded(cosine_summary(single, written_single)) if single else None,
        multi=token_cosines(tokens, written_tokens) if tokens else None,
    )


def recorded(cosines: CosineSummary) -> Cosines:
    """Cosines between single vectors, as the manifest records them."""
    return Cosines(mean=cosines.mean, p1=cosines.p1, min=cosines.min)


def token_cosines(exact: Sequence[Float32], written: Sequence[Float32]) -> TokenCosines:
    """Cosines between multi-vectors, token by token, as the manifest records them."""
    cosines = cosine_summary(exact, written)
    return TokenCosines(tokens=cosines.count, mean=cosines.mean, p1=cosines.p1)


def cosine_summary(exact: Sequence[Float32], written: Sequence[Float32]) -> CosineSummary:
    """Summary of the cosines between rows, with the digits of the manifest."""
    return summarise_cosines(row_cosines(np.concatenate(exact), np.concatenate(written)), DIGITS)
