"""Number of cores available to this process: its affinity, physical cores and the quota of its cgroup.

One thread more than physical cores halves the speed of a matrix product, so the number is rounded down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may use, at least 1; `root` contains /proc and /sys."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(root, cpu) for cpu in cpus}
    return max(1, int(min([float(len(cores)), *_quotas(root)])))


def _siblings(root: Path, cpu: int) -> str:
    """Identifier of the physical core of a logical CPU; that of the CPU if the system has no such file."""
    return read_text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").strip() or str(cpu)


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas in cores of this process's cgroup and its parents (version 2, then version 1)."""
    for group in cgroup_folders(root, "0", ""):
        quota = read_text(group / "cpu.max").split()
        if len(quota) == 2 and quota[0] != "max":
            yield int(quota[0]) / int(quota[1])
    for group in cgroup_folders(root, "cpu", "cpu"):
        quota, period = (read_text(group / f"cpu.cfs_{name}_us").split() for name in ("quota", "period"))
        if quota and period and int(quota[0]) > 0:
            yield int(quota[0]) / int(period[0])


def cgroup_folders(root: Path, controller: str, mount: str) -> Iterator[Path]:
    """Folders of this process's cgroup and its parents for one controller ('0' is version 2)."""
    base = root / "sys/fs/cgroup" / mount
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in (number if not controllers else controllers.split(",")):
            # Inside a container the path is often that of the host, while the mount is the container's own group: so
            # the base folder itself is among the parents.
            group = base / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(base))


def read_text(path: Path) -> str:
    """Content of a file of the system; empty if there is no such file."""
    try:
        return path.read_text()
    except OSError:
        return ""
