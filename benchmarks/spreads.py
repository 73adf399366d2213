"""Repeated measurements as their median with the lowest and the highest."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest, to four digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def cell(spread: Mapping[str, float] | None, factor: float, digits: int) -> str:
    """Median with lowest and highest, multiplied by a factor; empty where there is none."""
    if spread is None:
        return ""
    median, low, high = (f"{factor * spread[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} [{low}, {high}]"
