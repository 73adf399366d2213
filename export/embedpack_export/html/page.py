"""HTML page of tables and plots in one file: no scripts, no requests, all texts escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal, TypeAlias

from embedpack_export.html.plot import Scatter, groups_of, svg, swatch

STYLE = Path(__file__).with_name("style.css")
# Protection in depth: an unescaped text could not run or fetch anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
FRONT = "Pareto front (no other point is better on one axis and as good on the other):"


@dataclass(frozen=True)
class Heading:
    """Heading of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Badge:
    """A cell with a status: text and a color."""

    text: str
    kind: Literal["good", "bad", "open"]


@dataclass(frozen=True)
class Column:
    """Header of a column; numbers are right-aligned."""

    name: str
    number: bool = False


def columns(texts: Sequence[str], numbers: Sequence[str] = ()) -> list[Column]:
    """Headers of columns of texts, then of columns of numbers."""
    return [*(Column(name) for name in texts), *(Column(name, number=True) for name in numbers)]


@dataclass(frozen=True)
class Table:
    """A table of formatted texts, one cell for each column; the first cell is the header of its row."""

    caption: str
    header: Sequence[Column]
    rows: Sequence[Sequence[str | Badge]]


Part: TypeAlias = Heading | Paragraph | Table | Scatter


@dataclass(frozen=True)
class Page:
    """A page: title, paragraphs of introduction, parts."""

    title: str
    intro: Sequence[str]
    parts: Sequence[Part]


def html(page: Page) -> str:
    """Render a page as one HTML document; the result is deterministic.

    Raises:
        ValueError: a row has more or fewer cells than the table has columns, or a plot has no points.
    """
    title = escape(page.title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>\n{STYLE.read_text('utf-8')}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{title}</h1>",
            *(_paragraph(text) for text in page.intro),
            *(_part(part, f"part-{number}") for number, part in enumerate(page.parts, 1)),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _part(part: Part, key: str) -> str:
    match part:
        case Heading():
            return f"<h2>{escape(part.text)}</h2>"
        case Paragraph():
            return _paragraph(part.text)
        case Table():
            return _table(part, key)
        case Scatter():
            return _figure(part, key)


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(table: Table, key: str) -> str:
    """Render a table in a box that scrolls sideways, also by keyboard."""
    head = "".join(f'<th scope="col"{_numeric(column)}>{escape(column.name)}</th>' for column in table.header)
    return "\n".join(
        [
            f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{key}">',
            "<table>",
            f'<caption id="{key}">{escape(table.caption)}</caption>',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *(_row(table, row) for row in table.rows),
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _row(table: Table, row: Sequence[str | Badge]) -> str:
    head, *cells = [(_numeric(column), _cell(cell)) for column, cell in zip(table.header, row, strict=True)]
    data = "".join(f"<td{numeric}>{text}</td>" for numeric, text in cells)
    return f'<tr><th scope="row"{head[0]}>{head[1]}</th>{data}</tr>'


def _numeric(column: Column) -> str:
    return ' class="number"' if column.number else ""


def _cell(cell: str | Badge) -> str:
    if isinstance(cell, Badge):
        return f'<span class="badge {cell.kind}">{escape(cell.text)}</span>'
    return escape(cell)


def _figure(plot: Scatter, key: str) -> str:
    groups = groups_of(plot)
    legend = [f"<li>{swatch(number)} {escape(name)}</li>" for number, name in enumerate(groups)]
    best = [f"<li>{escape(plot.points[number].name)}</li>" for number in plot.front]
    return "\n".join(
        [
            "<figure>",
            f"<figcaption>{escape(plot.caption)}</figcaption>",
            svg(plot, key),
            *(['<ul class="legend">', *legend, "</ul>"] if len(groups) > 1 else []),
            *([_paragraph(FRONT), "<ol>", *best, "</ol>"] if best else []),
            "</figure>",
        ]
    )
