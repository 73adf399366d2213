"""Log of the command line: messages of embedpack on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from embedpack.cli.terminal import VisibleFormatter


@contextmanager
def log_to_stderr(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """Print the log of embedpack on standard error during the block."""
    logger = logging.getLogger("embedpack")
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
