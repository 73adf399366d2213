"""Codebooks fitted to calibration vectors: center and rotation, each kept if it raises recall on held-out vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.pack.manifest import CodebookPart
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LOW_BIT, Codebook, LowBit
from embedpack.vectors.codes import unit
from embedpack_export.arrays import Float64
from embedpack_export.quantization.code_rotation import learn_rotation

logger = logging.getLogger("embedpack")

# With fewer vectors, a mean and a measurement of its gain are mostly chance.
MIN_VECTORS = 16
# More vectors do not change the fit.
MAX_VECTORS = 4096
NEIGHBOURS = 10
# Tolerance for equal vectors: the tokens of a prompt have nearly the same vectors in all texts, and count once.
EQUAL_TOLERANCE = 1e-3

CodebookParts = tuple[CodebookPart, ...]
# Number of the modality of each vector, [n].
Modalities = npt.NDArray[np.intp]
NONE: CodebookParts = ()
CENTER: CodebookParts = ("center",)
ROTATION: CodebookParts = ("center", "rotation")


@dataclass(frozen=True)
class CodebookFit:
    """A codebook with the evidence for its parts."""

    codebook: Codebook  # fitted to all vectors
    kept: CodebookParts  # parts of it that are in use, of "center" and "rotation"
    # Mean recall of the exact nearest neighbours among codes (`neighbour_recall`) on held-out vectors, for each
    # combination of parts ("none", "center", "center+rotation") and each precision; empty if there were too few
    # vectors.
    recall_at_10: dict[str, dict[LowBit, float]]


@dataclass(frozen=True, eq=False)
class FittedVectors:
    """Unit vectors float32 [n, dimensions] that a codebook is fitted to.

    `modalities`: texts and images of models whose vectors of images are apart from those of texts (the modality gap,
    Liang et al. 2022, arXiv 2203.02053); None: all are of one modality.
    """

    vectors: Float32
    modalities: Modalities | None = None

    def rows(self, rows: slice | npt.NDArray[np.intp]) -> FittedVectors:
        """Some of the vectors."""
        return FittedVectors(self.vectors[rows], None if self.modalities is None else self.modalities[rows])

    def center(self) -> Float32:
        """Mean of the means of the modalities: halfway between texts and images, of which there are few."""
        if self.modalities is None:
            return self.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        groups = [self.vectors[self.modalities == number] for number in np.unique(self.modalities)]
        means = [group.mean(axis=0, dtype=np.float64) for group in groups]
        return np.mean(means, axis=0).astype(np.float32)


def fit_codebook(given: FittedVectors, ends: Sequence[int], *, parts: CodebookParts, seed: int) -> CodebookFit:
    """Fit a codebook to vectors, with those of `parts` that raise recall on held-out ones.

    `ends` are the dimensions after each possible truncation, the full ones last. A rotation needs a center.
    """
    given = _sample(given)
    count = len(given.vectors)
    if count < MIN_VECTORS:
        logger.info("codes: no center, no rotation; %d vectors are too few to test them", count)
        return CodebookFit(_codebook(given, NONE, ends, seed), NONE, {})
    tried = [steps for steps in (NONE, CENTER, ROTATION) if set(steps) <= set(parts)]
    recall = {steps: _held_out_recall(given, steps, ends, seed) for steps in tried}
    best = NONE
    for steps in tried[1:]:
        gain = _over_precisions(recall[steps]) - _over_precisions(recall[best])
        # A center costs nothing. A rotation costs a matrix, so its gain must exceed the standard error.
        needed = 0.0 if steps == CENTER else float(gain.std(ddof=1)) / len(gain) ** 0.5
        best = steps if gain.mean() > needed else best
    recalls = {_name(steps): _rounded_means(by_precision) for steps, by_precision in recall.items()}
    percent = ", ".join(f"{precision} {value:.0%}" for precision, value in recalls[_name(best)].items())
    logger.info("codes: %s kept; recall of the ten nearest neighbours: %s", _name(best), percent)
    return CodebookFit(_codebook(given, best, ends, seed), best, recalls)


def _codebook(given: FittedVectors, steps: CodebookParts, ends: Sequence[int], seed: int) -> Codebook:
    zero = np.zeros(given.vectors.shape[1], np.float32)
    center = given.center() if "center" in steps else zero
    centered = given.vectors - center
    spread = float(np.sqrt(np.square(centered).mean(dtype=np.float64)))
    rotation = learn_rotation(centered, ends, seed) if "rotation" in steps else ()
    rotated_center = Codebook.gaussian(zero, spread, rotation).rotate(center[None])[0]
    return Codebook.gaussian(rotated_center, spread, rotation)


def _held_out_recall(
    given: FittedVectors, steps: CodebookParts, ends: Sequence[int], seed: int
) -> dict[LowBit, Float64]:
    """`neighbour_recall` of all vectors by precision, of each half with a codebook fitted to the other half."""
    halves = (given.rows(slice(0, None, 2)), given.rows(slice(1, None, 2)))
    codebooks = [_codebook(half, steps, ends, seed) for half in reversed(halves)]
    return {
        precision: np.concatenate(
            [
                neighbour_recall(half.vectors, codebook, precision)
                for half, codebook in zip(halves, codebooks, strict=True)
            ]
        )
        for precision in LOW_BIT
    }


def neighbour_recall(vectors: Float32, codebook: Codebook, precision: LowBit) -> Float64:
    """Recall of the exact nearest neighbours of each vector among the codes of the others, [n]."""
    count = min(NEIGHBOURS, len(vectors) // 4)
    values = unit(codebook.values(codebook.digits(vectors, precision), precision))
    exact = _nearest(vectors @ vectors.T, count)
    among_codes = _nearest(codebook.rotate(vectors) @ values.T, count)
    return (among_codes[:, :, None] == exact[:, None, :]).any(axis=2).mean(axis=1)


def _nearest(scores: Float32, count: int) -> npt.NDArray[np.intp]:
    """Columns of the largest scores [n, n] in each row without its diagonal element, [n, count]."""
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def _sample(given: FittedVectors) -> FittedVectors:
    """At most MAX_VECTORS vectors, evenly spaced among the distinct ones."""
    _, first = np.unique(np.rint(given.vectors / EQUAL_TOLERANCE), axis=0, return_index=True)
    rows = np.sort(first)
    return given.rows(rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_VECTORS)).astype(int)])


def _over_precisions(recall: dict[LowBit, Float64]) -> Float64:
    return np.mean(list(recall.values()), axis=0)


def _rounded_means(recall: dict[LowBit, Float64]) -> dict[LowBit, float]:
    return {precision: round(float(values.mean()), 4) for precision, values in recall.items()}


def _name(steps: CodebookParts) -> str:
    return "+".join(steps) or "none"
