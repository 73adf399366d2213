"""Non-inferiority: whether a loss beyond a margin that was stated before is excluded, proven, or not to be told yet.

Three outcomes, from the 95 % interval of the mean difference (variant minus reference, in points):

    non-inferior      its lower bound is above -margin
    inferior          its upper bound is below -margin
    not resolvable    anything else: with so few queries the truth may lie on either side

Losses are rare and large: most queries keep their ranking, a few lose much. A small sample may hold none of those. So
an interval counts as at least as wide as single differences with a standard deviation of two points would make it, and
a sample for which that alone is wider than the margin is too small to pass, however lucky its mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["non-inferior", "inferior", "not resolvable"]

MARGIN = 0.3
# The least standard deviation of single differences, in points: 2 to 4 is usual for int8 weights, others have more.
LEAST_SPREAD = 2.0
# Half-width of a 95 % interval in standard errors.
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Verdict:
    """What the data say about a loss.

    Attributes:
        outcome: one of the three.
        difference: mean difference in points; below 0: a loss.
        low, high: its 95 % interval.
        margin: the largest loss that is put up with, in points.
        queries: queries (or pairs) behind it.
        needed: about how many it would take to tell, if the difference is as measured; None: it can be told, or lies
            just on the margin.
    """

    outcome: Outcome
    difference: float
    low: float
    high: float
    margin: float
    queries: int
    needed: int | None

    def __str__(self) -> str:
        if self.outcome != "not resolvable":
            return self.outcome
        wanted = "" if self.needed is None else f"; about {self.needed:,} would tell"
        return f"not resolvable with {self.queries:,} queries{wanted}"


def judge(difference: float, bounds: tuple[float, float], counts: Sequence[int], margin: float) -> Verdict:
    """The verdict on a mean difference over sets.

    Args:
        difference: mean over the sets.
        bounds: of its 95 % interval, by `bootstrap.interval`.
        counts: queries of each set.
        margin: in points, above 0.
    """
    # Of a mean of means.
    least = NORMAL_95 * LEAST_SPREAD * math.sqrt(sum(1 / count for count in counts)) / len(counts)
    low, high = min(bounds[0], difference - least), max(bounds[1], difference + least)
    queries = sum(counts)
    passes = low > -margin and least < margin
    outcome: Outcome = "non-inferior" if passes else "inferior" if high < -margin else "not resolvable"
    needed = None
    if outcome == "not resolvable" and not math.isclose(difference, -margin, abs_tol=1e-3):
        # Widths shrink with the root of the number of queries.
        width = difference - low if difference > -margin else high - difference
        needed = _round_up(queries * max(width / abs(difference + margin), least / margin) ** 2)
    return Verdict(outcome, difference, low, high, margin, queries, needed)


def _round_up(count: float) -> int:
    """Upwards, to two digits that count."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(round(count / step, 6)) * step
