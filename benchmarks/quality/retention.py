"""Retention: scores of a setting divided by those of the reference, over several sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedpack_export.evaluation.results import SetResult
from embedpack_export.metrics.bootstrap import RESAMPLES, interval, resampled_means

DIGITS = 5


def retention(results: Sequence[SetResult], seed: int) -> dict[str, Any]:
    """Return the mean retention over sets with its 95 % interval, the worst set, and the retention of each set."""
    by_set = {result.set: result.score / result.reference for result in results}
    worst = min(by_set, key=lambda name: by_set[name])
    generator = np.random.default_rng(seed)
    ratios = np.zeros(RESAMPLES)
    for result in results:
        scores = np.stack([result.by_query.scores, result.by_query.reference], axis=1)
        means = resampled_means(scores, generator)
        ratios += means[:, 0] / means[:, 1]
    low, high = interval(ratios / len(results))
    return {
        "retention": round(float(np.mean(list(by_set.values()))), DIGITS),
        "retention_95": [round(low, DIGITS), round(high, DIGITS)],
        "worst_set": worst,
        "worst_retention": round(by_set[worst], DIGITS),
        "by_set": {name: round(value, DIGITS) for name, value in by_set.items()},
    }


def retention_cells(row: dict[str, Any]) -> tuple[str, str, str]:
    """Format retention, interval and worst set of a row of results."""
    low, high = row["retention_95"]
    return f"{row['retention']:.2%}", f"[{low:.2%}, {high:.2%}]", f"{row['worst_retention']:.2%} {row['worst_set']}"
