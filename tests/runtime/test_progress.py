"""Progress bar: at a terminal only, after a delay."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from embedpack.progress import Progress, duration


class Stream(io.StringIO):
    """Standard error, a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Clock:
    """Clock of `embedpack.progress`, set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("embedpack.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Stream]:
    def use(terminal: bool) -> Stream:
        stream = Stream(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return use


def work(clock: Clock, seconds: float, items: int = 10) -> None:
    with Progress("embedding", items) as progress:
        for _ in range(items):
            clock.now += seconds / items
            progress.advance(1)


def test_silent_where_there_is_no_terminal(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(False)
    work(clock, seconds=100)
    assert stream.getvalue() == ""


def test_a_line_of_the_log_every_so_often_where_there_is_no_terminal(
    clock: Clock, stderr: Callable[[bool], Stream], caplog: pytest.LogCaptureFixture
) -> None:
    stream = stderr(False)
    caplog.set_level(logging.INFO, "embedpack")
    work(clock, seconds=100)
    assert caplog.messages == [
        "embedding 4/10  0.1/s  60 s left",
        "embedding 8/10  0.1/s  20 s left",
    ]
    assert stream.getvalue() == ""


def test_time_that_is_left_is_estimated_from_the_work(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    with Progress("embedding", 4, work=100) as progress:
        for share in (70, 10, 10, 10):  # the longest first
            clock.now += share
            progress.advance(1, share)
    drawn = stream.getvalue().split("\r")
    assert "1/4  0.0/s  30 s left" in drawn[1]
    assert "3/4  0.0/s  10 s left" in drawn[3]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1:40 h"), (34_561, "9:36 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_a_line_never_wraps(
    columns: int, clock: Clock, stderr: Callable[[bool], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = stderr(True)
    work(clock, seconds=20)
    lines = stream.getvalue().rstrip("\n").split("\r")[1:]
    assert max(map(len, lines)) < columns
    assert ("█" in stream.getvalue()) == (columns >= 60)


def test_a_terminal_without_unicode(
    clock: Clock, stderr: Callable[[bool], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stderr(True)
    monkeypatch.setattr(Stream, "encoding", "ascii", raising=False)
    work(clock, seconds=20)
    assert "embedding ###..........................." in stream.getvalue()


def test_no_bar_if_only_errors_are_wanted(
    clock: Clock, stderr: Callable[[bool], Stream], caplog: pytest.LogCaptureFixture
) -> None:
    stream = stderr(True)
    caplog.set_level(logging.ERROR, "embedpack")
    work(clock, seconds=20)
    assert stream.getvalue() == ""


def test_silent_for_short_work(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    work(clock, seconds=0.9)
    assert stream.getvalue() == ""


def test_long_work_shows_how_far_it_is(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    work(clock, seconds=20)
    lines = stream.getvalue().split("\r")
    assert lines[1] == "embedding ███░░░░░░░░░░░░░░░░░░░░░░░░░░░ 1/10  0.5/s  18 s left  "
    assert lines[-1] == "embedding ██████████████████████████████ 10/10  0.5/s  0 s left  \n"


def test_bar_is_not_drawn_for_every_item(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    work(clock, seconds=2, items=10_000)
    assert stream.getvalue().count("\r") <= 12


def test_nothing_to_do(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    with Progress("embedding", 0) as progress:
        clock.now += 5
        progress.advance(0)
    assert stream.getvalue().endswith("0/0  0.0/s  0 s left  \n")


def test_line_ends_after_an_error(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)

    def interrupted() -> None:
        with Progress("embedding", 10) as progress:
            clock.now += 5
            progress.advance(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().endswith("\n")


def test_process_without_standard_error(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    work(clock, seconds=20)


def test_total_that_nobody_knows(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    with Progress("embedding", None) as progress:
        for _ in range(4):
            clock.now += 2
            progress.advance(8)
    assert stream.getvalue().endswith("\rembedding 32  4.0/s  \n")
    assert "left" not in stream.getvalue()
