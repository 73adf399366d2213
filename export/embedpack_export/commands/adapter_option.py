"""Parser of the option --adapter TASK=DIR of several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import InputError


def parse_adapters(pairs: Sequence[str]) -> dict[str, Path]:
    """Parse TASK=DIR pairs to folders by task.

    Raises:
        InputError: a pair is not TASK=DIR, or names a task for the second time.
    """
    adapters: dict[str, Path] = {}
    for pair in pairs:
        task, separator, folder = pair.partition("=")
        if not separator or not task or not folder:
            raise InputError(f"--adapter {pair}: expected TASK=DIR, e.g. retrieval=adapters")
        if task in adapters:
            raise InputError(f"--adapter names the task {task!r} twice")
        adapters[task] = Path(folder)
    return adapters
