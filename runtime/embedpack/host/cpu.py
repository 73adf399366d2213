"""Identity of the CPU, as far as onnxruntime's arrangement of weights depends on it."""

from __future__ import annotations

import platform
from pathlib import Path

# Names in /proc/cpuinfo on x86 and on ARM.
FIELDS = (
    "vendor_id", "cpu family", "model", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip
X86_FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c")


def cpu_identity(root: Path = Path("/")) -> str:
    """Vendor, family, model, stepping and vector instructions of the first processor.

    Without `root`/proc/cpuinfo it is the system's name of the processor.
    """
    fields = cpu_fields(root)
    if fields is None:
        return f"{platform.machine()} {platform.processor()}"
    flags = [flag for flag in fields.get("flags", "").split() if flag.startswith(X86_FLAGS)]
    flags += fields.get("Features", "").split()
    return " ".join([platform.machine(), *(fields[name] for name in FIELDS if name in fields), *sorted(flags)])


def cpu_fields(root: Path = Path("/")) -> dict[str, str] | None:
    """Fields of the first processor in `root`/proc/cpuinfo by name; None: the system has no such file."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields
