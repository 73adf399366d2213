"""A plot as a file of its own: an SVG with its style and its legend, for documents that show images."""

from __future__ import annotations

from html import escape

from embedpack_export.html.page import STYLE
from embedpack_export.html.plot import HEIGHT, WIDTH, Scatter, groups_of, svg, swatch

LEGEND_LINE = 20


def svg_file(plot: Scatter, key: str) -> str:
    """SVG document with the plot and the names of its groups below; `key` as of `svg`."""
    groups = groups_of(plot)
    height = HEIGHT + LEGEND_LINE * len(groups)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{1.6 * WIDTH:.0f}">']
    lines.append(f"<style>\n{STYLE.read_text('utf-8')}</style>")
    lines.append(f'<rect width="{WIDTH}" height="{height}" style="fill: var(--ground)"/>')
    lines.append(svg(plot, key).replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ', 1))
    for number, group in enumerate(groups):
        top = HEIGHT + LEGEND_LINE * number
        mark = swatch(number).replace("<svg ", f'<svg x="24" y="{top}" width="14" height="14" ', 1)
        lines.append(f'{mark}<text x="44" y="{top + 11}">{escape(group)}</text>')
    return "\n".join([*lines, "</svg>\n"])
