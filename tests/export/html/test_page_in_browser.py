"""The page of a report in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedpack_export.html.axis import Axis
from embedpack_export.html.page import Badge, Column, Heading, Page, Paragraph, Table, html
from embedpack_export.html.plot import Point, Scatter, pareto_front
from tests.helpers.browser import Browser, find_chromium, open_browser

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
LONG = "a-task-with-a-name-that-does-not-end-" * 4
HOSTILE = "<img src=http://127.0.0.1:9/x onerror=alert(1)><script>alert(2)</script>"
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 22, 26)"}


def example() -> Page:
    points = [Point(f"{LONG} {number}", 2.0**number, 100 - number, f"group {number % 7}") for number in range(14)]
    x, y = Axis("bytes", log=True), Axis("loss")
    header = [Column("variant"), Column("verdict"), *(Column(f"figure {number}", number=True) for number in range(12))]
    row: list[str | Badge] = [LONG, Badge("within budget", "good"), *(f"{number}.12345" for number in range(12))]
    return Page(
        f"Accuracy of {HOSTILE} {LONG}",
        [f"What {LONG} is. {HOSTILE}"],
        [
            Heading(LONG),
            Table(HOSTILE, header, [row, row]),
            Paragraph(LONG),
            Scatter(LONG, x, y, points, pareto_front(points, x, y)),
        ],
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(html(example()), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with open_browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_and_is_silent(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    # The table is wider than any window, and scrolls in its box.
    assert browser.evaluate("(b => b.scrollWidth > b.clientWidth)(document.querySelector('.scroll'))")
    assert browser.evaluate("document.querySelectorAll('img, script, iframe, link').length") == 0
    requests = [item["request"]["url"] for item in browser.told("Network.requestWillBeSent")]
    assert requests == [page.as_uri()]
    assert browser.told("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    assert browser.told("Page.javascriptDialogOpening") == []


def test_letters_of_a_plot_are_readable_on_a_telephone(browser: Browser, page: Path) -> None:
    browser.open(page, 400, "light")
    heights = browser.evaluate("[...document.querySelectorAll('figure > svg text')].map(t => t.getBBox().height)")
    shown = browser.evaluate("(s => s.getBoundingClientRect().width / 460)(document.querySelector('figure > svg'))")
    assert len(heights) > 10
    assert min(heights) * shown >= 9
    # Nothing of the drawing lies outside of it.
    inside = browser.evaluate(
        "(s => { const r = s.getBoundingClientRect(); return [...s.querySelectorAll('text, path, circle, rect')].every("
        "e => { const b = e.getBoundingClientRect(); return b.left >= r.left - 1 && b.right <= r.right + 1 && "
        "b.top >= r.top - 1 && b.bottom <= r.bottom + 1; }); })(document.querySelector('figure > svg'))"
    )
    assert inside


def test_the_test_would_see_a_request(browser: Browser, tmp_path: Path) -> None:
    """Without the page's security policy, the browser requests the address in a hostile name, and the test sees it."""
    path = tmp_path / "bad.html"
    path.write_text(f"<!DOCTYPE html><title>x</title>{HOSTILE.replace('alert', 'console.log')}", "utf-8")
    browser.open(path, 400, "light")
    assert len(browser.told("Network.requestWillBeSent")) > 1
    assert browser.told("Runtime.consoleAPICalled", "Log.entryAdded")
