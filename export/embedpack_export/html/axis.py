"""Axes of a plot: range, positions of values, ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Steps between ticks, times a power of ten.
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MAX_TICKS = 6
# Room beyond the outermost points, as a fraction of the range.
MARGIN = 0.08


@dataclass(frozen=True)
class Axis:
    """Quantity of an axis."""

    label: str  # label with the unit
    better: Literal["low", "high"] = "low"  # the end of the good values
    log: bool = False  # logarithmic; all values are above 0


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, as positions from 0 to 1."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis) -> Scale:
        """A scale for all values, with room at both ends.

        Raises:
            ValueError: there are no values, one is not finite, or not above 0 on a logarithmic axis.
        """
        if not values or not all(math.isfinite(value) and (value > 0 or not axis.log) for value in values):
            raise ValueError(f"axis {axis.label!r}: values must be finite{' and above 0' * axis.log}, not {values}")
        places = [math.log2(value) if axis.log else value for value in values]
        room = (max(places) - min(places)) * MARGIN or (0.5 if axis.log else max(abs(places[0]) * MARGIN, 1e-3))
        return cls(min(places) - room, max(places) + room, axis.log)

    def position(self, value: float) -> float:
        """Position of a value, from 0 to 1."""
        place = math.log2(value) if self.log else value
        return (place - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the scale, ascending."""
        if self.log:
            return self._powers()
        step = self._step()
        first = math.ceil(self.low / step)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step) + 1)]

    def _step(self) -> float:
        rough = (self.high - self.low) / MAX_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        return next(step * power for step in STEPS if step * power >= rough * (1 - 1e-9))

    def _powers(self) -> list[float]:
        first, last = math.ceil(self.low), math.floor(self.high)
        every = max(1, math.ceil((last - first + 1) / MAX_TICKS))
        return [2.0**power for power in range(first, last + 1, every)]


def readable(value: float) -> str:
    """Format a value without an exponent or trailing zeros: 1,024, 0.25, -3."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
