"""Provenance of a results file: commit, versions, CPU, threads and load. No host, user or folder name is recorded."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedpack.host.cores import available_cores
from embedpack.host.cpu import cpu_fields
from embedpack.host.int8_support import products_saturate

# Root of the source tree. An installed package lies elsewhere, and git does not track its files.
ROOT = Path(__file__).parents[3]
PACKAGES = (
    "numpy", "onnxruntime", "tokenizers", "msgspec", "onnx", "onnx-ir", "torch", "transformers", "peft", "ir-measures",
    "scipy", "mteb", "numkong", "faiss-cpu",
)  # fmt: skip
# Instructions that decide the speed of matrix products.
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def provenance(threads: int | None, seed: int) -> dict[str, Any]:
    """Collect the provenance of a run that begins now; `threads` is None: all cores."""
    model, flags = _cpu()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "embedpack": importlib.metadata.version("embedpack"),
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": {
            "model": model,
            "flags": [flag for flag in CPU_FLAGS if flag in flags],
            "int8_products_saturate": products_saturate(),
            "cores": available_cores(),
        },
        # Load of other processes at the start, in cores.
        "load_average": round(os.getloadavg()[0], 2),
        "threads": threads or available_cores(),
        "seed": seed,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any]:
    """Return the commit of the source tree; None for an installed package."""
    if _ask_git("ls-files", "--error-unmatch", str(Path(__file__).resolve())) is None:
        return {"commit": None, "dirty": None}
    # Runs write results; these do not make the tree dirty.
    changes = _ask_git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return {"commit": _ask_git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _ask_git(*arguments: str) -> str | None:
    try:
        completed = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout.strip()


def _cpu() -> tuple[str, set[str]]:
    """Return model and flags of the first processor; no flags without /proc/cpuinfo."""
    fields = cpu_fields()
    if fields is None:
        return platform.processor() or platform.machine(), set()
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), set(flags.split())
