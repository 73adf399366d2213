"""Tables of the README from results.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.program import program

EXAMPLES = """example:
  python -m training.default_model.tables training/default_model/results.json"""


def table(results: dict[str, Any]) -> str:
    """One table for the search tasks, one for text-matching, in points (100 is perfect)."""
    return "\n".join([*search_rows(results), "", *graded_rows(results)])


def points(value: float) -> str:
    """Format in points: 0.8759 as 87.59."""
    return f"{100 * value:.2f}"


def search_rows(results: dict[str, Any]) -> Iterator[str]:
    """Rows of nDCG@10: backbone and adapter at each number of dimensions, and multi-vectors."""
    yield "| task | set | backbone, 384 | adapter, 384 | backbone, 64 | adapter, 64 | multi-vectors |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for task, sets in results["tasks"].items():
        if task == "text-matching":
            continue
        for name, metrics in sets.items():
            cells = [points(metrics[size][side]) for size in ("384", "64") for side in ("base", "adapter")]
            cells.append(points(metrics["multi"]["adapter"]))
            yield f"| `{task}` | `{name}` | {' | '.join(cells)} |"


def graded_rows(results: dict[str, Any]) -> Iterator[str]:
    """Rows of Spearman's correlation: backbone and adapter at each number of dimensions; the last row is the mean."""
    yield "| set | backbone, 384 | adapter, 384 | adapter, 384, `Passage: ` | backbone, 64 | adapter, 64 |"
    yield "|---|--:|--:|--:|--:|--:|"
    columns = [("384", side) for side in ("base", "adapter", "adapter_passage_prompt")]
    columns += [("64", side) for side in ("base", "adapter")]
    sets = results["tasks"].get("text-matching", {})
    rows = {name: [metrics[size][side] for size, side in columns] for name, metrics in sets.items()}
    for name, row in rows.items():
        yield f"| `{name}` | {' | '.join(map(points, row))} |"
    if rows:
        means = (sum(column) / len(rows) for column in zip(*rows.values(), strict=True))
        yield f"| mean | {' | '.join(map(points, means))} |"


def main() -> None:
    """Run the command line."""
    parser = program("default_model.tables", __doc__, EXAMPLES)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="file that training.default_model.evaluate wrote")
    print(table(json.loads(parser.parse_args().results.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
