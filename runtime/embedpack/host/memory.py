"""Memory: available on this host, within the limits of the cgroup, and used by this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ContextDecorator
from pathlib import Path
from types import TracebackType

from embedpack.errors import CapacityError
from embedpack.host.cores import cgroup_folders, read_text

MEGABYTE = 1_000_000
KIBIBYTE = 1024


def check_memory(needed: int, what: str, remedy: str, root: Path = Path("/")) -> None:
    """Raise CapacityError, with a remedy, if the work `what` needs more bytes than available; before allocating."""
    available = available_memory(root)
    if available is not None and needed > available:
        raise CapacityError(
            f"{what} needs about {needed // MEGABYTE} MB of memory, {available // MEGABYTE} MB are available; {remedy}"
        )


class memory_errors(ContextDecorator):  # noqa: N801 - reads as a statement, like contextlib.suppress
    """Turn a MemoryError of a block, or of a function, into a CapacityError."""

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MemoryError):
            raise CapacityError("the memory is full; free some, or pass fewer or smaller inputs at a time") from error


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping; None if the system does not report them.

    `root` contains /proc and /sys.
    """
    lines = read_text(root / "proc/meminfo").splitlines()
    system = (int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith("MemAvailable:"))
    return min((*system, *_cgroups(root)), default=None)


def peak_memory() -> int:
    """Largest number of bytes of this process that were resident at any time, mapped files included."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * KIBIBYTE
    # Not for Linux, where a new process inherits the figure of its parent. Windows has no such module.
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIBIBYTE)


def _cgroups(root: Path) -> Iterator[int]:
    """Bytes left of the limit of each cgroup around this process (version 2, then version 1).

    A cgroup's usage contains cached files, mapped weights among them, which the system drops when memory is short.
    """
    versions = (("0", "", "memory.max", "memory.current", ""),
                ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))  # fmt: skip
    for controller, mount, limit_file, usage_file, prefix in versions:
        for folder in cgroup_folders(root, controller, mount):
            limit, usage = read_text(folder / limit_file).strip(), read_text(folder / usage_file).strip()
            if limit.isdigit() and usage.isdigit():
                cached = _cached_file_bytes(read_text(folder / "memory.stat"), prefix)
                yield max(0, int(limit) - max(0, int(usage) - cached))


def _cached_file_bytes(statistics: str, prefix: str) -> int:
    """Bytes of cached files, from the content of memory.stat."""
    names = {f"{prefix}active_file", f"{prefix}inactive_file"}
    pairs = (line.split() for line in statistics.splitlines())
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in names)
