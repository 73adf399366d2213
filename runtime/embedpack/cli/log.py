"""Log of the command line: messages of embedpack on standard error."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from embedpack.cli.terminal import VisibleFormatter, visible

# Attribute of a record: the facts of its message by name, e.g. those of a request.
FACTS = "facts"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, logger, and the facts of the record, or its message."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Line of a record."""
        import msgspec  # loaded with the first line: Ctrl-C during an import is an interrupted command

        moment = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        fields = {"time": f"{moment}.{record.msecs:03.0f}Z", "level": record.levelname.lower(), "logger": record.name}
        facts = getattr(record, FACTS, None) or {"message": record.getMessage()}
        return visible(msgspec.json.encode(fields | facts).decode())


@contextmanager
def log_to_stderr(*, verbose: bool, quiet: bool, json: bool = False) -> Iterator[None]:
    """Print the log of embedpack on standard error during the block."""
    logger = logging.getLogger("embedpack")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if json else VisibleFormatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def json_lines(*, enabled: bool) -> Iterator[None]:
    """Print the log as JSON lines during the block, if `enabled`."""
    handlers = logging.getLogger("embedpack").handlers if enabled else []
    formatters = [handler.formatter for handler in handlers]
    for handler in handlers:
        handler.setFormatter(JsonFormatter())
    try:
        yield
    finally:
        for handler, formatter in zip(handlers, formatters, strict=True):
            handler.setFormatter(formatter)
