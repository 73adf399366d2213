"""How much memory the host can still give: that of the machine, or what the cgroup leaves of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from embedpack.errors import CapacityError
from embedpack.host.cores import cgroup_folders

MEGABYTE = 1_000_000
KIBIBYTE = 1024


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


def peak_memory() -> int:
    """Largest number of bytes of this process that were resident at any time, mapped files included."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * KIBIBYTE
    # Not on Linux: there, a process that is started inherits the figure of the one that starts it.
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIBIBYTE)


def _system(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * KIBIBYTE


def _cgroups(root: Path) -> Iterator[int]:
    """What each cgroup around this process leaves (version 2, then version 1).

    Files that the system keeps in memory count as used, mapped weights among them, but are dropped when it is short.
    """
    kinds = (("0", "", "memory.max", "memory.current", ""),
             ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))  # fmt: skip
    for controller, mount, limit_file, usage_file, prefix in kinds:
        for folder in cgroup_folders(root, controller, mount):
            limit, usage = _text(folder / limit_file).strip(), _text(folder / usage_file).strip()
            if limit.isdigit() and usage.isdigit():
                files = _files_in_memory(_text(folder / "memory.stat"), prefix)
                yield max(0, int(limit) - max(0, int(usage) - files))


def _files_in_memory(statistics: str, prefix: str) -> int:
    """Bytes of the pages of files, from the content of memory.stat."""
    names = {f"{prefix}active_file", f"{prefix}inactive_file"}
    pairs = (line.split() for line in statistics.splitlines())
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in names)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
