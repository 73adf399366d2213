"""Codebooks from calibration vectors: a center and a rotation, each only where vectors that took no part gain by it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.pack.manifest import CodeStep
from embedpack.vectors.codebook import LOW_BIT, Codebook, LowBit
from embedpack.vectors.codes import unit
from embedpack_export.arrays import Float32
from embedpack_export.quantization.code_rotation import learn_rotation

logger = logging.getLogger("embedpack")

# With fewer vectors a mean is mostly chance, and so is what they say of it.
MIN_VECTORS = 16
# Vectors of more tokens would say the same.
MAX_VECTORS = 4096
NEIGHBOURS = 10
# Components that differ by less count as equal: the tokens of a prompt have one vector in all texts.
EQUAL_TOLERANCE = 1e-3

Kept = tuple[CodeStep, ...]
NOTHING: Kept = ()
CENTER: Kept = ("center",)
ROTATION: Kept = ("center", "rotation")

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CodebookFit:
    """A codebook with the evidence for its parts.

    Attributes:
        codebook: fitted to all vectors.
        kept: parts of it that are in use, of "center" and "rotation".
        agreement: for each combination tried ("none", "center", "center+rotation") and precision the mean share of the
            exact nearest neighbours of a vector that are found among codes; of vectors that the codebook was not fitted
            to. Empty if there were too few.
    """

    codebook: Codebook
    kept: Kept
    agreement: dict[str, dict[LowBit, float]]


def fit_codebook(vectors: Float32, ends: Sequence[int], *, rotate: bool, seed: int) -> CodebookFit:
    """Fit a codebook to unit vectors, with the parts that raise the agreement of held-out vectors.

    Args:
        vectors: float32 [n, dimensions].
        ends: dimensions after each possible truncation, the full ones last.
        rotate: whether a rotation may be tried.
        seed: seed of the first rotation.
    """
    vectors = _sample(vectors)
    if len(vectors) < MIN_VECTORS:
        logger.info("codes: no center, no rotation; %d vectors are too few to judge them", len(vectors))
        return CodebookFit(_codebook(vectors, NOTHING, ends, seed), NOTHING, {})
    tried = (NOTHING, CENTER, ROTATION) if rotate else (NOTHING, CENTER)
    shares = {kept: _held_out(vectors, kept, ends, seed) for kept in tried}
    best = NOTHING
    for kept in tried[1:]:
        gain = _over_precisions(shares[kept]) - _over_precisions(shares[best])
        # A center costs nothing. A rotation costs a matrix, and has to be more than luck.
        needed = 0.0 if kept == CENTER else float(gain.std(ddof=1)) / len(gain) ** 0.5
        best = kept if gain.mean() > needed else best
    agreement = {_name(kept): _rounded_means(found) for kept, found in shares.items()}
    found = ", ".join(f"{precision} {share:.0%}" for precision, share in agreement[_name(best)].items())
    logger.info("codes: %s kept; of the ten nearest neighbours they find: %s", _name(best), found)
    return CodebookFit(_codebook(vectors, best, ends, seed), best, agreement)


def _codebook(vectors: Float32, kept: Kept, ends: Sequence[int], seed: int) -> Codebook:
    none = np.zeros(vectors.shape[1], np.float32)
    center = vectors.mean(axis=0, dtype=np.float64).astype(np.float32) if "center" in kept else none
    centered = vectors - center
    spread = float(np.sqrt(np.square(centered).mean(dtype=np.float64)))
    rotation = learn_rotation(centered, ends, seed) if "rotation" in kept else ()
    turned = Codebook.gaussian(none, spread, rotation).rotate(center[None])[0]
    return Codebook.gaussian(turned, spread, rotation)


def _held_out(vectors: Float32, kept: Kept, ends: Sequence[int], seed: int) -> dict[LowBit, Float64]:
    """`shares_found` of all vectors, each half with the codebook of the other; by precision."""
    halves = (vectors[::2], vectors[1::2])
    codebooks = [_codebook(half, kept, ends, seed) for half in reversed(halves)]
    return {
        precision: np.concatenate(
            [shares_found(half, codebook, precision) for half, codebook in zip(halves, codebooks, strict=True)]
        )
        for precision in LOW_BIT
    }


def shares_found(vectors: Float32, codebook: Codebook, precision: LowBit) -> Float64:
    """What share of its exact nearest others each vector finds among their codes, [n]."""
    count = min(NEIGHBOURS, len(vectors) // 4)
    values = unit(codebook.values(codebook.digits(vectors, precision), precision))
    exact = _nearest(vectors @ vectors.T, count)
    found = _nearest(codebook.rotate(vectors) @ values.T, count)
    return (found[:, :, None] == exact[:, None, :]).any(axis=2).mean(axis=1)


def _nearest(scores: Float32, count: int) -> npt.NDArray[np.intp]:
    """Columns of the largest scores [n, n] of each row, its own left out; [n, count]."""
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def _sample(vectors: Float32) -> Float32:
    """At most MAX_VECTORS vectors, evenly taken from those that differ."""
    _, first = np.unique(np.rint(vectors / EQUAL_TOLERANCE), axis=0, return_index=True)
    rows = np.sort(first)
    return vectors[rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_VECTORS)).astype(int)]]


def _over_precisions(shares: dict[LowBit, Float64]) -> Float64:
    return np.mean(list(shares.values()), axis=0)


def _rounded_means(shares: dict[LowBit, Float64]) -> dict[LowBit, float]:
    return {precision: round(float(found.mean()), 4) for precision, found in shares.items()}


def _name(kept: Kept) -> str:
    return "+".join(kept) or "none"
