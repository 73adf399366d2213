"""Time and memory of calls in this process. Peers' environments run it too: it imports nothing but numpy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MIN_CALLS = 3


def repeated(call: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Median wall time and mean CPU time of a call, after a first one that does not count."""
    call()
    walls: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while len(walls) < MIN_CALLS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    return {"calls": len(walls), "wall_s": float(np.median(walls)), "cpu_s": cpu / len(walls)}


def once(call: Callable[[], object]) -> dict[str, Any]:
    """Wall and CPU time of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return {"calls": 1, "wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def memory() -> dict[str, int]:
    """Resident and anonymous bytes of this process, and the most that was resident.

    Mapped files are resident, but not anonymous.
    """
    rollup, status = _fields("smaps_rollup"), _fields("status")
    return {"rss": rollup["Rss"], "anonymous": rollup["Anonymous"], "peak": status["VmHWM"]}


def _fields(name: str) -> dict[str, int]:
    """Numbers in kB of a file in /proc/self, as bytes."""
    found = {}
    for line in Path("/proc/self", name).read_text().splitlines():
        key, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[key] = int(value.split()[0]) * 1024
    return found
