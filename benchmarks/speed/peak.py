"""Peak of a core of this CPU in operations per second, measured by a small C program, and operations of a graph."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from embedpack import EmbedpackError
from embedpack.pack.folder import Pack

SOURCE = Path(__file__).with_name("peak.c")


class NotMeasuredError(EmbedpackError):
    """A C program cannot be compiled or run here."""


def measured_peak(copies: int = 1) -> dict[str, Any]:
    """Measure the peak by arithmetic, in 10^9 operations per second, with the instructions.

    Args:
        copies: number of copies of the program that run at the same time; their peaks are added.

    Returns:
        "instructions" and "gops" by arithmetic; or the key "not_measured" with the reason.
    """
    try:
        lines = lines_of_program(SOURCE, ("-O2", "-march=native"), copies)
    except NotMeasuredError as error:
        return {"not_measured": str(error)}
    peaks: dict[str, Any] = {}
    for name, instructions, gops in map(str.split, lines):
        peak = peaks.setdefault(name, {"instructions": instructions, "gops": 0.0})
        peak["gops"] = round(peak["gops"] + float(gops), 2)
    return peaks


def lines_of_program(source: Path, flags: Sequence[str], copies: int = 1) -> list[str]:
    """Compile a C program and return the lines that it prints, of all copies that run at the same time.

    Raises:
        NotMeasuredError: there is no compiler, it cannot compile the program, or the program fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotMeasuredError("there is no C compiler (cc)")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / source.stem)
        built = subprocess.run(
            [compiler, *flags, "-o", program, str(source)], capture_output=True, text=True, check=False
        )
        if built.returncode:
            # This CPU has no -march=native, no immintrin.h or other instructions.
            errors = [line for line in built.stderr.splitlines() if "error" in line.lower()]
            reason = errors[0].rpartition("rror: ")[2] if errors else "no message"
            raise NotMeasuredError(f"cc cannot compile {source.name}: {reason}")
        running = [subprocess.Popen([program], stdout=subprocess.PIPE, text=True) for _ in range(copies)]
        printed = [process.communicate()[0] for process in running]
    failed = [process.returncode for process in running if process.returncode]
    if failed:
        raise NotMeasuredError(f"{source.name} ended with status {failed[0]}")
    return [line for text in printed for line in text.splitlines()]


def best(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Higher peaks of two measurements."""
    if "not_measured" in one or "not_measured" in other:
        return one
    return {name: max(one[name], other[name], key=lambda entry: float(entry["gops"])) for name in one}


def product_weights(pack: Pack, graph: str) -> int:
    """Number of values of all weight matrices in int8 products of a graph."""
    model = onnx.load(str(pack.path(graph)), load_external_data=False)
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    return sum(math.prod(shapes[name]) for name in names)
