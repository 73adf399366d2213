"""Page of a report: contents, layout, and escaped names of packs."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from embedpack_export.html.axis import Axis, Scale, readable
from embedpack_export.html.page import Badge, Column, Heading, Page, Paragraph, Table, html
from embedpack_export.html.plot import Point, Scatter, pareto_front, svg

HOSTILE = "<script>alert('1')</script>\"&'"
SIZE, LOSS, SPEED = Axis("bytes", log=True), Axis("loss"), Axis("tokens a second", better="high")


class Reader(HTMLParser):
    """Tags of a document with their attributes, its text, and tags that were never closed."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def hostile_page() -> Page:
    points = [Point(HOSTILE, 1, 2, HOSTILE), Point("b", 2, 1, "other")]
    axis = Axis(HOSTILE)
    table = Table(HOSTILE, [Column(HOSTILE), Column("n", number=True)], [[HOSTILE, Badge(HOSTILE, "bad")]])
    scatter = Scatter(HOSTILE, axis, axis, points, pareto_front(points, axis, axis))
    return Page(HOSTILE, [HOSTILE], [Heading(HOSTILE), Paragraph(HOSTILE), table, scatter])


def test_every_text_stays_text() -> None:
    found = Reader(html(hostile_page()))
    assert found.open == []
    assert {tag for tag, _ in found.tags} >= {"svg", "table", "h1", "h2"}
    assert "script" not in {tag for tag, _ in found.tags}
    # Title, heading, introduction, section, paragraph; caption, column, row, badge; caption twice, description, two
    # axes, a point, its group, its place in the front.
    assert found.text.count(HOSTILE) == 19
    for _, attributes in found.tags:
        assert not any(name.startswith("on") or "alert" in (value or "") for name, value in attributes.items())


def test_a_page_needs_nothing_else() -> None:
    text = html(hostile_page())
    assert not re.search(r"(src|href|url|@import)\b\s*[=(]", text)
    policy = Reader(text).named("meta")[1]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_same_page_gives_the_same_text() -> None:
    assert html(hostile_page()) == html(hostile_page())


def test_numbers_are_right_aligned_and_the_first_cell_names_its_row() -> None:
    text = html(Page("t", [], [Table("c", [Column("name"), Column("bytes", number=True)], [["a", "12"]])]))
    assert '<th scope="col">name</th><th scope="col" class="number">bytes</th>' in text
    assert '<tr><th scope="row">a</th><td class="number">12</td></tr>' in text


def test_a_table_scrolls_in_its_own_box_and_is_named() -> None:
    found = Reader(html(Page("t", [], [Heading("h"), Table("c", [Column("name")], [["a"]])])))
    (box,) = [item for item in found.named("div") if item["class"] == "scroll"]
    assert (box["tabindex"], box["aria-labelledby"]) == ("0", "part-2")
    assert found.named("caption") == [{"id": "part-2"}]


def test_drawings_have_titles_of_their_own() -> None:
    plot = Scatter("c", SIZE, LOSS, [Point("a", 1, 1)], [0])
    found = Reader(html(Page("t", [], [plot, plot])))
    assert [item["id"] for item in found.named("desc")] == ["part-1-desc", "part-2-desc"]
    assert "1 points. Across: bytes, low is better. Upwards: loss, low is better. Pareto front: a." in found.text


def test_a_row_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        html(Page("t", [], [Table("c", [Column("name")], [["a", "b"]])]))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [0.0]])
def test_values_that_cannot_be_drawn_are_a_mistake(values: list[float]) -> None:
    with pytest.raises(ValueError, match="axis 'bytes': values must be finite and above 0, not"):
        Scale.over(values, SIZE)


def test_the_front_is_what_no_other_beats() -> None:
    """(2, 2) dominates (2, 3) and (4, 2); of the two (1, 5) the first stays."""
    points = [Point("", x, y) for x, y in ((2, 3), (1, 5), (2, 2), (4, 2), (8, 1), (1, 5))]
    assert pareto_front(points, SIZE, LOSS) == (1, 2, 4)
    # Fast and small: (8, 1) alone beats all.
    assert pareto_front(points, SPEED, LOSS) == (4,)
    # High is better on both axes.
    assert pareto_front(points, SPEED, SPEED) == (4, 3, 0, 1)


def test_marks_lie_where_their_values_are() -> None:
    points = [Point("a", 1, 0), Point("b", 4, 10), Point("c", 2, 5)]
    drawing = svg(Scatter("c", SIZE, LOSS, points, [0, 1]), "k")
    found = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawing)]
    (ax, ay), (bx, by), (cx, cy) = found
    # 2 is half way between 1 and 4 on a logarithmic axis; upwards is a smaller y.
    assert cx == pytest.approx((ax + bx) / 2, abs=0.1)
    assert cy == pytest.approx((ay + by) / 2, abs=0.1)
    assert by < ay
    assert f'<path class="front" d="M{ax} {ay}L{bx} {by}"/>' in drawing


def test_ticks_are_round_values_on_the_scale() -> None:
    assert Scale.over([0.0, 0.9], LOSS).ticks() == [0, 0.2, 0.4, 0.6, 0.8]
    assert Scale.over([16.0, 1536.0], SIZE).ticks() == [16, 64, 256, 1024]
    one = Scale.over([5.0], LOSS)
    assert one.position(5) == pytest.approx(0.5)
    assert len(one.ticks()) >= 2
    assert [readable(value) for value in (1024, 0.25, -3, -1e-9)] == ["1,024", "0.25", "-3", "0"]


def test_letters_have_contrast() -> None:
    """4.5 to 1 of letters and 3 to 1 of marks on their ground, in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11)."""
    style = html(Page("t", [], []))
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for theme in (light, dark):
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        assert len(colors) == 17
        pairs = [(name, f"{name}-ground", 4.5) for name in ("good", "bad", "open")]
        pairs += [("ink", "ground", 7.0), ("soft", "ground", 4.5), *((f"c{n}", "ground", 3.0) for n in range(6))]
        for front, ground, least in pairs:
            assert contrast(colors[front], colors[ground]) >= least, (front, theme)


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
