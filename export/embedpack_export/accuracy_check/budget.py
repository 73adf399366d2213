"""Budget of loss of an export."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.pack.accuracy_records import CheckOutcome
from embedpack.pack.strict import WeightsFormat
from embedpack_export.planning.settings import MAX_LOSS

# Mean cosine of multi-vectors that quantization alone does not go below: a lower one means a damaged head. Rankings by
# multi-vectors are not compared; damage to the layers below the head also shows in the single vectors.
MIN_TOKEN_COSINE: dict[WeightsFormat, float] = {"fp32": 0.9999, "int8": 0.98, "int4": 0.9}


@dataclass(frozen=True)
class Budget:
    """Loss that a variant may have, in points of nDCG@10."""

    max_loss: float | None = None  # budget of every weights format; None: that of MAX_LOSS for its format
    allow_loss: float | None = None  # loss over the budget that is accepted; None: none is

    def points(self, weights: WeightsFormat) -> float:
        """The budget of a weights format."""
        return MAX_LOSS[weights] if self.max_loss is None else self.max_loss

    def outcome(self, weights: WeightsFormat, loss: float | None, token_cosine: float | None) -> CheckOutcome:
        """Outcome of a variant's check, as in the manifest.

        `loss` is None if there were too few texts to rank, `token_cosine` (the mean) if there are no multi-vectors.
        """
        damaged = token_cosine is not None and token_cosine < MIN_TOKEN_COSINE[weights]
        if loss is None and not damaged:
            return "not judged"
        if (loss or 0) <= self.points(weights) and not damaged:
            return "within budget"
        return "allowed" if self.allow_loss is not None and (loss or 0) <= self.allow_loss else "over budget"
