"""Text for terminals: control characters in names and texts are escaped, so that they cannot change the display."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

# C0 without tab and newline, DEL, C1; marks that reorder text (Unicode Bidirectional Algorithm, UAX #9); surrogates.
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Escape control characters as \u001b, which is valid inside JSON too."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class VisibleBuffer:
    """UTF-8 stream with control characters escaped: JSON lines on a terminal."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def writelines(self, lines: Iterable[bytes]) -> None:
        """Write whole lines."""
        for line in lines:
            self._stream.write(visible(line.decode("utf-8")).encode("utf-8"))

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


class VisibleStream:
    """Text stream with control characters escaped, also in its buffer on a terminal; the rest is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def buffer(self) -> VisibleBuffer | IO[bytes]:
        """Stream of bytes; those that do not go to a terminal are data, and stay as they are."""
        return VisibleBuffer(self._stream.buffer) if self._stream.isatty() else self._stream.buffer

    def write(self, text: str) -> int:
        """Write a text; characters that the encoding of the stream does not have are escaped."""
        encoding = self._stream.encoding or "utf-8"
        return self._stream.write(visible(text).encode(encoding, "backslashreplace").decode(encoding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class VisibleFormatter(logging.Formatter):
    """Messages of the log with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return visible(super().format(record))


@contextmanager
def visible_output() -> Iterator[None]:
    """Escape control characters on standard output during the block."""
    # A process without a console has no standard output.
    stream = cast(TextIO, VisibleStream(sys.stdout)) if sys.stdout is not None else None
    with contextlib.redirect_stdout(stream):
        yield
