"""Progress bar: at a terminal only, after a delay."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from embedpack.progress import Progress


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


def test_silent_for_short_work(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    work(clock, seconds=0.9)
    assert stream.getvalue() == ""


def test_long_work_shows_how_far_it_is(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    work(clock, seconds=20)
    lines = stream.getvalue().split("\r")
    assert lines[1] == "embedding ███░░░░░░░░░░░░░░░░░░░░░░░░░░░ 1/10  0/s  18 s left  "
    assert lines[-1] == "embedding ██████████████████████████████ 10/10  0/s  0 s left  \n"


def test_bar_is_not_drawn_for_every_item(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    work(clock, seconds=2, items=10_000)
    assert stream.getvalue().count("\r") <= 12


def test_nothing_to_do(clock: Clock, stderr: Callable[[bool], Stream]) -> None:
    stream = stderr(True)
    with Progress("embedding", 0) as progress:
        clock.now += 5
        progress.advance(0)
    assert stream.getvalue().endswith("0/0  0/s  0 s left  \n")


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
