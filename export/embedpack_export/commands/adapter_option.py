"""Parser of the option --adapter TASK=DIR of several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import InputError, OptionError

ADAPTER_CONFIG = "adapter_config.json"


def parse_adapters(pairs: Sequence[str]) -> dict[str, Path]:
    """Parse TASK=DIR pairs to folders by task.

    Raises:
        OptionError: a pair is not TASK=DIR, or names a task for the second time.
        InputError: a folder holds no adapter.
    """
    adapters: dict[str, Path] = {}
    for pair in pairs:
        task, separator, folder = pair.partition("=")
        if not separator or not task or not folder:
            raise OptionError(f"--adapter {pair}: expected TASK=DIR, e.g. retrieval=adapters")
        if task in adapters:
            raise OptionError(f"--adapter names the task {task!r} twice")
        adapters[task] = Path(folder)
    for path in adapters.values():
        _check_folder(path)
    return adapters


def _check_folder(folder: Path) -> None:
    remedy = "--adapter names the folder that PEFT saved"
    if not folder.is_dir():
        raise InputError(f"adapter folder {folder} does not exist; {remedy}")
    if not (folder / ADAPTER_CONFIG).exists():
        raise InputError(f"adapter folder {folder} holds no {ADAPTER_CONFIG}; {remedy}")
