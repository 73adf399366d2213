"""The figures of results.json as the tables of the README."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def table(results: dict[str, Any]) -> str:
    """One table for the tasks that search, one for text-matching; in hundredths, as they are quoted."""
    return "\n".join([*search_rows(results), "", *graded_rows(results)])


def percent(value: float) -> str:
    """0.8759 is printed as 87.59."""
    return f"{100 * value:.2f}"


def search_rows(results: dict[str, Any]) -> Iterator[str]:
    """nDCG@10, backbone and adapter at each size, and multi-vectors."""
    yield "| task | set | backbone, 384 | adapter, 384 | backbone, 64 | adapter, 64 | multi-vectors |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for task, sets in results["tasks"].items():
        if task == "text-matching":
            continue
        for name, found in sets.items():
            figures = [percent(found[size][side]) for size in ("384", "64") for side in ("base", "adapter")]
            figures.append(percent(found["multi"]["adapter"]))
            yield f"| `{task}` | `{name}` | {' | '.join(figures)} |"


def graded_rows(results: dict[str, Any]) -> Iterator[str]:
    """Spearman, backbone and adapter at each size, and the mean of the sets."""
    yield "| set | backbone, 384 | adapter, 384 | adapter, 384, `Passage: ` | backbone, 64 | adapter, 64 |"
    yield "|---|--:|--:|--:|--:|--:|"
    columns = (
        ("384", "base"),
        ("384", "adapter"),
        ("384", "adapter_passage_prompt"),
        ("64", "base"),
        ("64", "adapter"),
    )
    sets = results["tasks"].get("text-matching", {})
    rows = {name: [found[size][side] for size, side in columns] for name, found in sets.items()}
    for name, row in rows.items():
        yield f"| `{name}` | {' | '.join(map(percent, row))} |"
    if rows:
        means = (sum(column) / len(rows) for column in zip(*rows.values(), strict=True))
        yield f"| mean | {' | '.join(map(percent, means))} |"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
