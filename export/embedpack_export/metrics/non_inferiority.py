"""Non-inferiority test: is a loss beyond the margin excluded, shown, or not resolvable?

The outcome follows from the 95 % interval of the mean difference (variant minus reference, in points):

    non-inferior      the lower bound is above -margin
    inferior          the upper bound is below -margin
    not resolvable    the interval contains -margin: the sample is too small

Losses are rare and large: most queries keep their ranking, a few lose much. A small sample may contain none of those,
and its interval would be too narrow. So the interval is at least as wide as single differences with a standard
deviation of two points would make it, and a sample for which this width exceeds the margin is never non-inferior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedpack_export.metrics.bootstrap import Interval

Outcome = Literal["non-inferior", "inferior", "not resolvable"]

MARGIN = 0.3
# Of single differences, in points: 2 to 4 is usual for int8 weights, others have more.
MIN_STANDARD_DEVIATION = 2.0
# Half-width of a 95 % interval in standard errors.
NORMAL_95 = 1.96


@dataclass(frozen=True)
class NonInferiority:
    """Result of a non-inferiority test."""

    outcome: Outcome
    difference: float  # mean difference in points, negative for a loss
    # Bounds of its 95 % interval.
    low: float
    high: float
    margin: float  # the loss that is allowed, in points
    queries: int  # number of queries (or pairs) in the sample
    # Estimated number of queries that would resolve the difference as measured; None if it is resolved, or lies on the
    # margin.
    needed: int | None

    def __str__(self) -> str:
        if self.outcome != "not resolvable":
            return self.outcome
        needed = "" if self.needed is None else f"; about {self.needed:,} are needed"
        return f"not resolvable with {self.queries:,} queries{needed}"


def non_inferiority(difference: float, bounds: Interval, counts: Sequence[int], margin: float) -> NonInferiority:
    """Test the mean of the sets' mean differences, in points, with its 95 % interval `bounds`.

    `counts` has the number of queries of each set; `margin` is the loss that is allowed in points, above 0.
    """
    # Standard error of a mean of means.
    min_width = NORMAL_95 * MIN_STANDARD_DEVIATION * math.sqrt(sum(1 / count for count in counts)) / len(counts)
    low, high = min(bounds.low, difference - min_width), max(bounds.high, difference + min_width)
    queries = sum(counts)
    passes = low > -margin and min_width < margin
    outcome: Outcome = "non-inferior" if passes else "inferior" if high < -margin else "not resolvable"
    needed = None
    if outcome == "not resolvable" and not math.isclose(difference, -margin, abs_tol=1e-3):
        # Widths shrink with the square root of the number of queries.
        width = difference - low if difference > -margin else high - difference
        needed = _round_up(queries * max(width / abs(difference + margin), min_width / margin) ** 2)
    return NonInferiority(outcome, difference, low, high, margin, queries, needed)


def _round_up(count: float) -> int:
    """Round upwards to two significant digits."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(round(count / step, 6)) * step
