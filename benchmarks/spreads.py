"""Spreads of repeated measurements: median, lowest and highest value."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Spread = dict[str, float]


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest and highest value, to four digits."""
    result = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in result.items()}


def cell(spread: Mapping[str, float] | None, factor: float, digits: int) -> str:
    """Text of a spread times a factor, "median [lowest, highest]"; empty for None."""
    if spread is None:
        return ""
    median, low, high = (f"{factor * spread[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} [{low}, {high}]"
