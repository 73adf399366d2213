"""Progress on standard error: a bar on a terminal, a line of the log every so often elsewhere.

Short work shows nothing. The bar is drawn unless the log of "embedpack" is set to errors alone; lines are of the level
INFO, so programs that do not ask for them stay silent.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Self

SILENT_SECONDS = 1.0
REDRAW_SECONDS = 0.1
LINE_SECONDS = 30.0
WIDTH = 30
MIN_WIDTH = 8
DEFAULT_COLUMNS = 80
BARS = (("█", "░"), ("#", "."))

logger = logging.getLogger("embedpack")


class Progress:
    """Counter of finished items; the time that is left is estimated from their work."""

    def __init__(self, label: str, total: int | None, work: int | None = None) -> None:
        """Start at no items.

        Args:
            label: name of the work.
            total: number of items; None: unknown, only the count and the rate are shown.
            work: sum of the work of all items, in any unit; None: every item is as much work as the others.
        """
        self._label = label
        self._total = total
        self._done = 0
        self._work = work
        self._done_work = 0
        self._begin = self._drawn = self._logged = time.monotonic()
        self._visible = False
        self._length = 0  # of the line on the terminal

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._visible:
            self._draw()
            sys.stderr.write("\n")

    def advance(self, items: int, work: int = 0) -> None:
        """Count `items` more as finished, with their work."""
        self._done += items
        self._done_work += work
        now = time.monotonic()
        if now - self._begin <= SILENT_SECONDS:
            return
        if not _is_terminal():
            if now - self._logged > LINE_SECONDS:
                self._logged = now
                logger.info("%s", self._line())
        elif now - self._drawn > REDRAW_SECONDS and _wanted():
            self._drawn = now
            self._visible = True
            self._draw()

    @property
    def _share(self) -> float:
        """Share of the work that is finished, 0 to 1."""
        if self._work:
            return min(1.0, self._done_work / self._work)
        return self._done / self._total if self._total else 1.0

    def _line(self, bar: str = "") -> str:
        rate = self._done / max(self.seconds, 1e-9)
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
        if self._total is None:
            return f"{self._label} {self._done}  {speed}"
        left = f"  {duration(self.seconds * (1 - self._share) / self._share)} left" if self._share else ""
        return f"{self._label} {bar}{self._done}/{self._total}  {speed}{left}"

    def _draw(self) -> None:
        # A line that wraps could not be drawn over.
        columns = _columns() - 1
        width = min(WIDTH, columns - len(self._line()) - 3)
        line = self._line(self._bar(width) + " ") if self._total is not None and width >= MIN_WIDTH else self._line()
        self._length = min(columns, max(self._length, len(line) + 2))
        sys.stderr.write(f"\r{line[:columns].ljust(self._length)}")
        sys.stderr.flush()

    def _bar(self, width: int) -> str:
        full, empty = next(pair for pair in BARS if _encodes("".join(pair)))
        filled = int(width * self._share)
        return full * filled + empty * (width - filled)


def duration(seconds: float) -> str:
    """Text of a duration, e.g. 42 s, 8 min, 2:05 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02} h"


def _is_terminal() -> bool:
    # A process without a console (pythonw, a service) has no standard error at all.
    return sys.stderr is not None and sys.stderr.isatty()


def _wanted() -> bool:
    return logger.isEnabledFor(logging.WARNING)


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stderr.fileno()).columns) or DEFAULT_COLUMNS
    except (OSError, ValueError):  # no real terminal; not a number
        return DEFAULT_COLUMNS


def _encodes(text: str) -> bool:
    try:
        text.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return text.isascii()
    return True
