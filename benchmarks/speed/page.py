"""HTML page with the tables and plots of a results file of the speed benchmark."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import program
from benchmarks.speed.rows import OURS, QUANTIZED
from benchmarks.speed.table import compared, missing_peers, peak_text
from embedpack.errors import EmbedpackError, InputError
from embedpack.storage.atomic import atomic_file
from embedpack_export.html.axis import Axis
from embedpack_export.html.page import Column, Heading, Page, Paragraph, Part, Table, html
from embedpack_export.html.plot import Point, Scatter

EXAMPLES = """example:
  python -m benchmarks.speed.page benchmarks/results/peers-minilm.json -o speed.html"""

HEADER = (
    Column("program"),
    Column("ms per call", number=True),
    Column("tokens/s", number=True),
    Column(f"speed of embedpack {QUANTIZED} / program", number=True),
    Column("by CPU time", number=True),
    Column("share of peak", number=True),
    Column("cosine: mean, lowest", number=True),
    Column("peak MB", number=True),
    Column("anonymous MB", number=True),
)
Row = Mapping[str, Any]


def page(report: Mapping[str, Any]) -> Page:
    """Page of a results file that `python -m benchmarks speed` wrote.

    Raises:
        InputError: the results are of another benchmark or of an older version.
    """
    if report.get("benchmark") != "speed":
        raise InputError(f"these are results of the benchmark {report.get('benchmark')!r}; pass those of speed")
    results = report["results"]
    if "peak_of_a_core" not in results:
        raise InputError("these results were written by an older version; measure again")
    parts: list[Part] = []
    for (inputs, threads), rows in _groups(results).items():
        title = f"{inputs}, {threads} thread{'s' * (threads > 1)}"
        parts += [Heading(title), Table(title, HEADER, [_cells(row) for row in rows]), _plot(title, rows)]
    if results["peers"] and (missing := missing_peers(results["peers"])):
        parts += [Heading("Missing"), *(Paragraph(text) for text in missing)]
    return Page(f"Speed of {results['model']}", list(_intro(report)), parts)


def _intro(report: Mapping[str, Any]) -> Iterator[str]:
    conditions, results = report["provenance"], report["results"]
    cpu = conditions["cpu"]
    yield (
        f"{cpu['model']}, {cpu['cores']} cores ({', '.join(cpu['flags'])}), load {conditions['load_average']} at the "
        f"start; commit {str(conditions['git']['commit'])[:10]}; {conditions['date']}. Medians of "
        f"{results['repetitions']} interleaved repetitions, each in a process of its own; lowest and highest in "
        "brackets."
    )
    yield report["command"]
    peak = peak_text(results["peak_of_a_core"])
    yield f"{peak[0].upper()}{peak[1:]}."
    versions = results["peers"]["environments"] if results["peers"] else {}
    for name, packages in versions.items():
        yield f"Environment {name}: {', '.join(packages)}."


def _groups(results: Mapping[str, Any]) -> dict[tuple[str, int], list[Row]]:
    """Rows by inputs and threads, those of the pack first."""
    groups: dict[tuple[str, int], list[Row]] = {}
    peers = results["peers"] or {"shapes": [], "mixed": []}
    for row in [*results["shapes"], *results["mixed"], *peers["shapes"], *peers["mixed"]]:
        inputs = f"{row['rows']} x {row['tokens']} texts x tokens" if "rows" in row else "texts of mixed lengths"
        groups.setdefault((inputs, row["threads"]), []).append(row)
    return groups


def _name(row: Row) -> str:
    if "peer" in row:
        return str(row["peer"])
    batching = row.get("batching", OURS)
    name = f"embedpack {row['variant']}" + ", in parts" * row.get("in_parts", False)
    return name + ("" if batching == OURS else f", {batching}")


def _cells(row: Row) -> list[str]:
    return [
        _name(row),
        *compared(row),
        f"{row['peak_bytes']['median'] / 1e6:.0f}",
        f"{row['anonymous_bytes']['median'] / 1e6:.0f}",
    ]


def _plot(title: str, rows: Sequence[Row]) -> Scatter:
    points = [
        Point(
            _name(row),
            row["peak_bytes"]["median"] / 1e6,
            row["tokens_per_s"]["median"],
            "peers" if "peer" in row else "embedpack",
        )
        for row in rows
    ]
    x, y = Axis("peak memory, MB", better="low"), Axis("tokens per second", better="high")
    return Scatter(f"{title}: speed and memory", x, y, points)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.speed.page", __doc__, EXAMPLES)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="file that `python -m benchmarks speed` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="HTML file to write")
    options = parser.parse_args(arguments)
    try:
        written = html(page(json.loads(options.results.read_text("utf-8"))))
    except EmbedpackError as error:
        print(f"benchmarks.speed.page: {error}", file=sys.stderr)
        return 1
    with atomic_file(options.output) as stream:
        stream.write(written.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
