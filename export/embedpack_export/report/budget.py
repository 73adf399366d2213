"""How much a variant may lose."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.pack import Verdict, WeightsFormat
from embedpack_export.settings import MAX_LOSS, ExportSettings


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

    def verdict(self, weights: WeightsFormat, loss: float | None) -> Verdict:
        """The verdict on a loss; None: it could not be told."""
        if loss is None:
            return "not judged"
        if loss <= self.points(weights):
            return "within budget"
        return "allowed" if self.allowed is not None and loss <= self.allowed else "over budget"
