"""Time and memory of a process.

Depends on Python only, since the environments of other programs import it, and it must not slow cold starts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

MIN_CALLS = 3
KIBIBYTE = 1024

Timing = dict[str, float]


def repeated(call: Callable[[], object], seconds: float = 0.0, min_calls: int = MIN_CALLS) -> Timing:
    """Median wall time and mean CPU time of a call, after one that is not counted.

    Args:
        call: function to time.
        seconds: time after which no further call starts.
        min_calls: number of calls at least, whatever they take.
    """
    call()
    walls: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while len(walls) < min_calls or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    return {"calls": len(walls), "wall_s": statistics.median(walls), "cpu_s": cpu / len(walls)}


def once(call: Callable[[], object]) -> Timing:
    """Wall and CPU time of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return {"calls": 1, "wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def memory(process: int | str = "self") -> dict[str, int]:
    """Memory of a process in bytes, on Linux.

    Returns:
        "rss", resident memory, mapped files included; "pss", the same with pages divided by the processes that share
        them; "anonymous", resident memory that no file backs; "peak", the highest resident memory so far.
    """
    rollup, status = _fields(process, "smaps_rollup"), _fields(process, "status")
    return {"rss": rollup["Rss"], "pss": rollup["Pss"], "anonymous": rollup["Anonymous"], "peak": status["VmHWM"]}


def reset_peak() -> None:
    """Set the highest resident memory of this process to the present one, on Linux."""
    Path("/proc/self/clear_refs").write_text("5")


def count_threads() -> int:
    """Number of threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


def _fields(process: int | str, name: str) -> dict[str, int]:
    """Fields in kB of a file in /proc/PROCESS, as bytes."""
    fields = {}
    for line in Path(f"/proc/{process}", name).read_text().splitlines():
        key, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[key] = int(value.split()[0]) * KIBIBYTE
    return fields
