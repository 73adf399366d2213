"""Progress bar on standard error; nothing is drawn if that is not a terminal or the work is short."""

from __future__ import annotations

import sys
import time
from typing import Self

SILENT_SECONDS = 1.0
WIDTH = 30


class Progress:
    """Counter of finished items, drawn once the work has lasted `SILENT_SECONDS`."""

    def __init__(self, label: str, total: int | None) -> None:
        """Start at no items; without a `total` only the count and the rate are drawn."""
        self._label = label
        self._total = total
        self._done = 0
        self._begin = self._drawn = time.monotonic()
        self._visible = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._visible:
            self._draw()
            sys.stderr.write("\n")

    def advance(self, items: int) -> None:
        """Count `items` more as finished."""
        self._done += items
        now = time.monotonic()
        if now - self._begin > SILENT_SECONDS and now - self._drawn > 0.1 and _is_terminal():
            self._drawn = now
            self._visible = True
            self._draw()

    def _draw(self) -> None:
        rate = self._done / max(time.monotonic() - self._begin, 1e-9)
        if self._total is None:
            sys.stderr.write(f"\r{self._label} {self._done}  {rate:,.1f}/s  ")
            sys.stderr.flush()
            return
        filled = WIDTH * self._done // max(self._total, 1)
        left = (self._total - self._done) / max(rate, 1e-9)
        bar = "█" * filled + "░" * (WIDTH - filled)
        sys.stderr.write(f"\r{self._label} {bar} {self._done}/{self._total}  {rate:,.0f}/s  {left:,.0f} s left  ")
        sys.stderr.flush()


def _is_terminal() -> bool:
    # A process without a console (pythonw, a service) has no standard error at all.
    return sys.stderr is not None and sys.stderr.isatty()
