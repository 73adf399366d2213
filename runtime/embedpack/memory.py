"""How much memory the host can still give: that of the machine, or what the cgroup leaves of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedpack.errors import CapacityError
from embedpack.threads import cgroup_folders

MEGABYTE = 1_000_000


def check_memory(needed: int, what: str, remedy: str, root: Path = Path("/")) -> None:
    """Refuse work that would not fit, before anything is allocated.

    Raises:
        CapacityError: more bytes are needed than there are.
    """
    available = available_memory(root)
    if available is not None and needed > available:
        raise CapacityError(
            f"{what} needs about {needed // MEGABYTE} MB of memory, {available // MEGABYTE} MB are available; {remedy}"
        )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not tell.

    Args:
        root: where /proc and /sys are looked up.
    """
    return min((found for found in (*_system(root), *_cgroups(root)) if found is not None), default=None)


def _system(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _cgroups(root: Path) -> Iterator[int]:
    """What each cgroup around this process leaves (version 2, then version 1)."""
    kinds = (("0", "", "memory.max", "memory.current"),
             ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))  # fmt: skip
    for controller, mount, limit_file, usage_file in kinds:
        for folder in cgroup_folders(root, controller, mount):
            limit, usage = _text(folder / limit_file).strip(), _text(folder / usage_file).strip()
            if limit.isdigit() and usage.isdigit():
                yield max(0, int(limit) - int(usage))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
