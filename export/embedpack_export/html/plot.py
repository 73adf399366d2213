"""Scatter plot as inline SVG: points in groups, and a line through the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from embedpack_export.html.axis import Axis, Scale, readable

# Units of the drawing, which is scaled to the page: text stays readable on a telephone.
WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 14, 48
# Size of the number of a point, which must not overlap the one before.
NUMBER_WIDTH, NUMBER_HEIGHT = 15.0, 10.0
# Colors are in the style sheet. Each group differs from the next in color and form.
COLORS = 6
FORMS = (
    '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    '<rect x="{left:.1f}" y="{top:.1f}" width="8.4" height="8.4"/>',
    '<path d="M{x:.1f} {high:.1f}l5.4 9.4h-10.8z"/>',
    '<path d="M{x:.1f} {high:.1f}l5.6 5.6l-5.6 5.6l-5.6 -5.6z"/>',
    '<path d="M{x:.1f} {low:.1f}l5.4 -9.4h-10.8z"/>',
)


@dataclass(frozen=True)
class Point:
    """A point with its name, its coordinates, and the group that determines color and form."""

    name: str
    x: float
    y: float
    group: str = ""


@dataclass(frozen=True)
class Scatter:
    """A plot."""

    caption: str  # title of the plot
    x: Axis
    y: Axis
    points: Sequence[Point]  # one or more points
    # Indices of the points of the Pareto front (see `pareto_front`); they are numbered, joined by a line and named
    # below the plot.
    front: Sequence[int] = ()


def pareto_front(points: Sequence[Point], x: Axis, y: Axis) -> tuple[int, ...]:
    """Indices of the points that no other dominates, the best of the x axis first; of equal points the first.

    A point dominates another if it is as good on both axes and better on one.
    """
    sign_x, sign_y = (1 if axis.better == "low" else -1 for axis in (x, y))
    order = sorted(range(len(points)), key=lambda number: (sign_x * points[number].x, sign_y * points[number].y))
    front: list[int] = []
    for number in order:
        if not front or sign_y * points[number].y < sign_y * points[front[-1]].y:
            front.append(number)
    return tuple(front)


def svg(plot: Scatter, key: str) -> str:
    """Draw a plot; `key` makes the ids of its title and description unique on the page."""
    scale_x = Scale.over([point.x for point in plot.points], plot.x)
    scale_y = Scale.over([point.y for point in plot.points], plot.y)
    places = [(_across(scale_x.position(point.x)), _down(scale_y.position(point.y))) for point in plot.points]
    groups = groups_of(plot)
    marks = [
        f'<g class="{_color(groups.index(point.group))}"><title>{escape(point.name)}</title>'
        f"{_form(groups.index(point.group), *place)}</g>"
        for point, place in zip(plot.points, places, strict=True)
    ]
    front = [places[number] for number in plot.front]
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{key}-title {key}-desc">',
            f'<title id="{key}-title">{escape(plot.caption)}</title>',
            f'<desc id="{key}-desc">{escape(_description(plot))}</desc>',
            *_grid(scale_x, scale_y),
            *_labels(plot),
            *([_line(front)] if len(front) > 1 else []),
            *marks,
            *_numbers(plot, front),
            "</svg>",
        ]
    )


def swatch(group: int) -> str:
    """Mark of a group, for the legend."""
    return (
        f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true"><g class="{_color(group)}">'
        f"{_form(group, 7, 7)}</g></svg>"
    )


def groups_of(plot: Scatter) -> list[str]:
    """Names of the groups, in the order of their first points."""
    return list(dict.fromkeys(point.group for point in plot.points))


def _description(plot: Scatter) -> str:
    best = ", ".join(plot.points[number].name for number in plot.front)
    front = f" Pareto front: {best}." if best else ""
    return (
        f"{len(plot.points)} points. Across: {plot.x.label}, {plot.x.better} is better. "
        f"Upwards: {plot.y.label}, {plot.y.better} is better.{front}"
    )


def _across(position: float) -> float:
    return LEFT + position * (WIDTH - LEFT - RIGHT)


def _down(position: float) -> float:
    return HEIGHT - BOTTOM - position * (HEIGHT - TOP - BOTTOM)


def _grid(scale_x: Scale, scale_y: Scale) -> list[str]:
    lines = []
    for value in scale_x.ticks():
        x = _across(scale_x.position(value))
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{readable(value)}</text>')
    for value in scale_y.ticks():
        y = _down(scale_y.position(value))
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{readable(value)}</text>')
    return lines


def _labels(plot: Scatter) -> list[str]:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(plot.x.label)}</text>",
        f'<text class="label" transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(plot.y.label)}</text>",
    ]


def _line(places: Sequence[tuple[float, float]]) -> str:
    return f'<path class="front" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>'


def _numbers(plot: Scatter, places: Sequence[tuple[float, float]]) -> list[str]:
    """Numbers of the points of the front, on the side of better values, where no other point lies."""
    left, below = plot.x.better == "low", plot.y.better == "low"
    texts, last = [], (-NUMBER_WIDTH, 0.0)
    for number, (x, y) in enumerate(places, 1):
        place = x + (-5 if left else 5), y + (14 if below else -6)
        if abs(place[0] - last[0]) < NUMBER_WIDTH and abs(place[1] - last[1]) < NUMBER_HEIGHT:
            place = place[0], last[1] + (NUMBER_HEIGHT if below else -NUMBER_HEIGHT)
        anchor = "end" if left else "start"
        texts.append(
            f'<text class="number" x="{place[0]:.1f}" y="{place[1]:.1f}" text-anchor="{anchor}">{number}</text>'
        )
        last = place
    return texts


def _color(group: int) -> str:
    return f"c{group % COLORS}"


def _form(group: int, x: float, y: float) -> str:
    return FORMS[group % len(FORMS)].format(x=x, y=y, left=x - 4.2, top=y - 4.2, high=y - 5.6, low=y + 5.6)
