"""HTML page with the tables of a results file of the roofline, and a plot of floors and measured times."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.arguments import program
from benchmarks.roofline.groups import Group
from benchmarks.roofline.table import HEADER, cells, headline, rates_lines
from benchmarks.roofline.totals import Total, totals_by
from embedpack.errors import EmbedpackError, InputError
from embedpack.storage.atomic import atomic_file
from embedpack_export.html.axis import Axis
from embedpack_export.html.page import Heading, Page, Paragraph, Part, Table, columns, html
from embedpack_export.html.plot import Point, Scatter

EXAMPLES = """example:
  python -m benchmarks.roofline.page benchmarks/results/roofline.json -o roofline.html"""


def page(report: Mapping[str, Any]) -> Page:
    """Page of a results file that `python -m benchmarks roofline` wrote.

    Raises:
        InputError: the results are of another benchmark.
    """
    if report.get("benchmark") != "roofline":
        raise InputError(f"these are results of the benchmark {report.get('benchmark')!r}; pass those of roofline")
    results, parts = report["results"], list[Part]()
    for row in results["shapes"]:
        parts += _parts(f"{row['rows']} x {row['tokens']}", row)
    return Page(f"Roofline of {results['model']}, {results['variant']}", list(_intro(report)), parts)


def _intro(report: Mapping[str, Any]) -> Iterator[str]:
    conditions = report["provenance"]
    yield (
        f"{conditions['cpu']['model']} ({', '.join(conditions['cpu']['flags'])}), one thread, load "
        f"{conditions['load_average']} at the start; onnxruntime {conditions['packages']['onnxruntime']}; commit "
        f"{str(conditions['git']['commit'])[:10]}; {conditions['date']}."
    )
    yield report["command"]
    yield from rates_lines(report["results"]["rates"])


def _parts(title: str, row: Mapping[str, Any]) -> Iterator[Part]:
    groups = msgspec.convert(row["groups"], list[Group])
    yield Heading(title)
    yield Paragraph(headline(row, groups))
    total = Total.of("all", groups)
    for name, totals in (
        ("role", totals_by(groups, lambda group: group.role)),
        ("operator", totals_by(groups, lambda group: group.operator)),
    ):
        rows = [list(map(str, cells(each, total))) for each in (*totals, total)]
        yield Table(f"{title}, by {name}", columns([name], HEADER), rows)
    plot = _plot(title, groups)
    if plot.points:
        yield plot


def _plot(title: str, groups: Sequence[Group]) -> Scatter:
    """Plot of groups of nodes: floor and measured time of all of their nodes, by role."""
    points = [
        Point(
            f"{group.nodes} {group.operator} {group.values}",
            1e6 * group.nodes * group.floor_s,
            1e6 * group.nodes * group.measured_s,
            group.role,
        )
        for group in groups
        if group.measured_s and group.floor_s
    ]
    x, y = Axis("floor, us", log=True), Axis("measured, us", log=True)
    return Scatter(f"{title}: floor and measured time", x, y, points)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.roofline.page", __doc__, EXAMPLES)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="file that `python -m benchmarks roofline` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="HTML file to write")
    options = parser.parse_args(arguments)
    try:
        written = html(page(json.loads(options.results.read_text("utf-8"))))
    except EmbedpackError as error:
        print(f"benchmarks.roofline.page: {error}", file=sys.stderr)
        return 1
    with atomic_file(options.output) as stream:
        stream.write(written.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
