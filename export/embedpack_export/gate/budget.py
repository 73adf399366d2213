"""How much a variant may lose."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.pack.manifest import Verdict, WeightsFormat
from embedpack_export.planning.settings import MAX_LOSS, ExportSettings

# Mean cosine of the vectors of tokens below which a head must be damaged: rounding alone leaves more. Whole rankings
# of multi-vectors are not compared; what spoils the layers below the head shows in the single vectors.
LOWEST_TOKEN_COSINE: dict[WeightsFormat, float] = {"fp32": 0.9999, "int8": 0.98, "int4": 0.9}


@dataclass(frozen=True)
class Budget:
    """Points of nDCG@10 that may be lost: `most` of any weights format (None: MAX_LOSS); `allowed` beyond that."""

    most: float | None = None
    allowed: float | None = None

    @classmethod
    def of(cls, settings: ExportSettings) -> Budget:
        """That of an export."""
        return cls(settings.max_loss, settings.allow_loss)

    def points(self, weights: WeightsFormat) -> float:
        """What a variant may lose unasked."""
        return MAX_LOSS[weights] if self.most is None else self.most

    def verdict(self, weights: WeightsFormat, loss: float | None, token_cosine: float | None) -> Verdict:
        """The verdict on a loss (None: it could not be told) and the mean cosine of tokens (None: there are none)."""
        token_damage = token_cosine is not None and token_cosine < LOWEST_TOKEN_COSINE[weights]
        if loss is None and not token_damage:
            return "not judged"
        if (loss or 0) <= self.points(weights) and not token_damage:
            return "within budget"
        return "allowed" if self.allowed is not None and (loss or 0) <= self.allowed else "over budget"
