"""What one core of this CPU can compute at most, measured by a small C program where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("peak.c")


def measured_peak(copies: int = 1) -> dict[str, Any]:
    """10^9 operations a second by arithmetic, each with its instructions; or the reason why there is no figure.

    Args:
        copies: of the program that run at the same time, each on a core if there are as many; their figures are added.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return {"not_measured": "there is no C compiler (cc)"}
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        command = [compiler, "-O2", "-march=native", "-o", program, str(SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            # -march=native, immintrin.h or the instructions: this is another kind of CPU.
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


def _added(found: Sequence[Mapping[str, tuple[str, float]]]) -> dict[str, Any]:
    return {
        name: {"instructions": instructions, "gops": round(sum(one[name][1] for one in found), 2)}
        for name, (instructions, _) in found[0].items()
    }


def best(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The higher figures of two measurements."""
    if "not_measured" in one or "not_measured" in other:
        return one
    return {name: max(one[name], other[name], key=lambda item: float(item["gops"])) for name in one}


def _first_error(message: str) -> str:
    lines = [line for line in message.splitlines() if "error" in line.lower()]
    return lines[0].rpartition("rror: ")[2] if lines else "no message"
