"""Which CPU this is, as far as it decides how onnxruntime arranges weights."""

from __future__ import annotations

import platform
from pathlib import Path

# Of x86, then of ARM, as /proc/cpuinfo has them.
FIELDS = (
    "vendor_id", "cpu family", "model", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip
X86_FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c")


def cpu_identity(root: Path = Path("/")) -> str:
    """Maker, family, model, stepping and vector instructions of the first processor.

    Args:
        root: where /proc is looked up; where it has no cpuinfo, the system's own name for the processor is taken.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = [flag for flag in found.get("flags", "").split() if flag.startswith(X86_FLAGS)]
    flags += found.get("Features", "").split()
    parts = [platform.machine(), *(found[name] for name in FIELDS if name in found), *sorted(flags)]
    return " ".join(parts)
