"""Peak of a core of this CPU in operations per second, measured by a small C program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("peak.c")


def measured_peak(copies: int = 1) -> dict[str, Any]:
    """Measure the peak by arithmetic, in 10^9 operations per second, with the instructions.

    Args:
        copies: number of copies of the program that run at the same time; their peaks are added.

    Returns:
        "instructions" and "gops" by arithmetic; or the key "not_measured" with the reason.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return {"not_measured": "there is no C compiler (cc)"}
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        command = [compiler, "-O2", "-march=native", "-o", program, str(SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            # This CPU has no -march=native, no immintrin.h or other instructions.
            return {"not_measured": f"cc cannot compile {SOURCE.name}: {_first_error(built.stderr)}"}
        running = [subprocess.Popen([program], stdout=subprocess.PIPE, text=True) for _ in range(copies)]
        printed = [process.communicate()[0] for process in running]
    failed = [process.returncode for process in running if process.returncode]
    if failed:
        return {"not_measured": f"{SOURCE.name} ended with status {failed[0]}"}
    return _added([_parsed(text) for text in printed])


def _parsed(printed: str) -> dict[str, tuple[str, float]]:
    lines = map(str.split, printed.splitlines())
    return {name: (instructions, float(rate)) for name, instructions, rate in lines}


def _added(copies: Sequence[Mapping[str, tuple[str, float]]]) -> dict[str, Any]:
    return {
        name: {"instructions": instructions, "gops": round(sum(copy[name][1] for copy in copies), 2)}
        for name, (instructions, _) in copies[0].items()
    }


def best(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Higher peaks of two measurements."""
    if "not_measured" in one or "not_measured" in other:
        return one
    return {name: max(one[name], other[name], key=lambda entry: float(entry["gops"])) for name in one}


def _first_error(message: str) -> str:
    lines = [line for line in message.splitlines() if "error" in line.lower()]
    return lines[0].rpartition("rror: ")[2] if lines else "no message"
