"""Axes of a plot: which values they reach over, where those lie, and the ticks between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Steps between ticks, times a power of ten, that are easily read.
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MOST_TICKS = 6
# Room beyond the outermost points, as a part of the axis.
MARGIN = 0.08


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: of the axis, with its unit.
        better: the end where good values are.
        log: whether equal factors take equal room; all values are above 0 then.
    """

    label: str
    better: Literal["low", "high"] = "low"
    log: bool = False


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, as positions from 0 to 1."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis) -> Scale:
        """A scale that all values fit on, with some room at both ends.

        Raises:
            ValueError: there are no values, one is not finite, or not above 0 on a logarithmic axis.
        """
        if not values or not all(math.isfinite(value) and (value > 0 or not axis.log) for value in values):
            raise ValueError(f"axis {axis.label!r}: finite values are needed{', above 0' * axis.log}; found {values}")
        places = [math.log2(value) if axis.log else value for value in values]
        room = (max(places) - min(places)) * MARGIN or (0.5 if axis.log else max(abs(places[0]) * MARGIN, 1e-3))
        return cls(min(places) - room, max(places) + room, axis.log)

    def position(self, value: float) -> float:
        """Where a value lies."""
        place = math.log2(value) if self.log else value
        return (place - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values on the scale, ascending."""
        if self.log:
            return self._powers()
        step = self._step()
        first = math.ceil(self.low / step)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step) + 1)]

    def _step(self) -> float:
        rough = (self.high - self.low) / MOST_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        return next(step * power for step in STEPS if step * power >= rough * (1 - 1e-9))

    def _powers(self) -> list[float]:
        first, last = math.ceil(self.low), math.floor(self.high)
        every = max(1, math.ceil((last - first + 1) / MOST_TICKS))
        return [2.0**power for power in range(first, last + 1, every)]


def readable(value: float) -> str:
    """A tick's value without an exponent or needless zeros: 1,024, 0.25, -3."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
