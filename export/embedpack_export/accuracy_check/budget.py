"""Budget of loss of an export."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.pack.accuracy_records import CheckOutcome, ImageAccuracy, ScoreAgreement, TokenCosines
from embedpack.pack.strict import WeightsFormat
from embedpack_export.planning.settings import MAX_LOSS

# Mean cosine of multi-vectors that quantization alone does not go below: a lower one means a damaged head. Rankings by
# multi-vectors are not compared; damage to the layers below the head also shows in the single vectors.
MIN_TOKEN_COSINE: dict[WeightsFormat, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98, "int4": 0.9}
# The same of images, which are too few to rank: a lower one means a damaged vision graph, or pixels that are read in
# another way than the reference reads them.
MIN_IMAGE_COSINE = MIN_TOKEN_COSINE

# Difference of scores, over their standard deviation, that quantization alone does not exceed: a larger one means a
# damaged head, even if the order of the documents is the same. The report of an export of the cross-encoder in
# training/default_reranker has 0.00 in fp32, 0.03 in int8 and 0.05 in int4. Its damaged heads (damaged_heads.py there)
# have 0.014 without the bias of the pooler, 0.27 without the activation, 0.80 with another one: every format notices a
# wrong activation, fp32 a missing bias too.
MAX_SCORE_DIFFERENCE: dict[WeightsFormat, float] = {"fp32": 0.01, "fp16": 0.05, "int8": 0.1, "int4": 0.2}


@dataclass(frozen=True)
class Budget:
    """Loss that a variant may have, in points of nDCG@10."""

    max_loss: float | None = None  # budget of every weights format; None: that of MAX_LOSS for its format
    allow_loss: float | None = None  # loss over the budget that is accepted; None: none is

    def points(self, weights: WeightsFormat) -> float:
        """The budget of a weights format."""
        return MAX_LOSS[weights] if self.max_loss is None else self.max_loss

    def outcome(self, weights: WeightsFormat, loss: float | None, damaged: bool) -> CheckOutcome:
        """Outcome of a variant's check, as in the manifest.

        `loss` is None if there were too few texts to rank; `damaged` is true if vectors that are not ranked, those of
        tokens and of images, are farther from the reference's than rounding explains.
        """
        if loss is None and not damaged:
            return "not judged"
        if (loss or 0) <= self.points(weights) and not damaged:
            return "within budget"
        return "allowed" if self.allow_loss is not None and (loss or 0) <= self.allow_loss else "over budget"


def are_damaged_scores(weights: WeightsFormat, scores: ScoreAgreement) -> bool:
    """True if scores are farther from the reference's than rounding explains."""
    return not scores.relative_difference <= MAX_SCORE_DIFFERENCE[weights]


def is_damaged(weights: WeightsFormat, tokens: TokenCosines | None, images: ImageAccuracy | None) -> bool:
    """True if token vectors or vectors of images are farther from the reference's than rounding explains."""
    if tokens is not None and tokens.mean < MIN_TOKEN_COSINE[weights]:
        return True
    if images is None:
        return False
    damaged = images.single is not None and images.single.mean < MIN_IMAGE_COSINE[weights]
    return damaged or is_damaged(weights, images.multi, None)
