"""Under which conditions figures were taken, and by which command. Nothing names a host, a user or a folder outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedpack_export.evaluation.provenance import ROOT, provenance

__all__ = ["ROOT", "command_line", "provenance"]


def command_line(arguments: Sequence[str]) -> str:
    """The command to repeat; a path outside the repository is cut to its last part."""
    return " ".join(["python -m benchmarks", *map(_portable, arguments)])


def _portable(argument: str) -> str:
    name, equals, value = argument.rpartition("=")
    outside = Path(value).is_absolute() or ".." in Path(value).parts
    return name + equals + (Path(value).name if outside else value)
