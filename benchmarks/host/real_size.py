"""Export and use of a checkpoint of the size of jina-embeddings-v4 with random weights: time, memory, bytes.

Time and memory do not depend on the values of the weights. Accuracy does, and is not measured here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.embedder_worker import AdapterJob, PageJob, measure_adapters, measure_page
from benchmarks.spreads import cell
from benchmarks.timing import KIBIBYTE
from embedpack import EmbedpackError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.provenance import ROOT
from embedpack_export.evaluation.text_table import text_table

TASK = "retrieval"


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write a checkpoint, export it, open the pack and encode.

    Raises:
        EmbedpackError: a step failed.
    """
    checkpoint = folder / "checkpoint"
    steps = {}
    if not checkpoint.exists():
        steps["make"] = _step(
            [sys.executable, "-m", "benchmarks.checkpoints.make_v4", str(checkpoint), "--size", options.size]
        )
    steps["export merged, one task"] = _export(checkpoint, folder / "merged", "merged", options)
    pack_bytes = {"merged, one task": _pack_bytes(folder / "merged")}
    if options.switchable:
        steps["export switchable, three tasks"] = _export(checkpoint, folder / "switchable", "switchable", options)
        pack_bytes["switchable, three tasks"] = _pack_bytes(folder / "switchable")
    threads = options.threads or available_cores()
    adapters = None
    if options.switchable:
        merged, switchable = (str((folder / mode).resolve()) for mode in ("merged", "switchable"))
        pair = AdapterJob(
            merged=merged, switchable=switchable, task=TASK, threads=threads, repetitions=options.repetitions
        )
        adapters = in_fresh_process(measure_adapters, pair)
    job = PageJob(pack=str((folder / "merged").resolve()), variant=f"{TASK}-int8", threads=threads, seed=options.seed)
    opened = in_fresh_process(measure_page, job)
    return {
        "checkpoint_bytes": sum(path.stat().st_size for path in checkpoint.rglob("*.safetensors")),
        "steps": steps,
        "pack_bytes": pack_bytes,
        "opened": opened,
        "size": options.size,
        "switchable_over_merged": adapters,
    }


def _export(checkpoint: Path, pack: Path, mode: str, options: argparse.Namespace) -> dict[str, float]:
    shutil.rmtree(pack, ignore_errors=True)
    command = [sys.executable, "-m", "embedpack", "export", str(checkpoint), "-o", str(pack)]
    command += ["--weights", "int8", "--adapters", mode]
    command += ["--task", TASK] if mode == "merged" else []
    command += ["--calibrate", str(options.calibrate)] if options.calibrate else []
    return _step(command)


def _step(command: Sequence[str]) -> dict[str, float]:
    """Run a command; return its seconds and its peak resident memory, mapped files included."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise EmbedpackError(f"{' '.join(command[1:4])} failed; its message is above")
    return {"wall_s": round(time.perf_counter() - start, 1), "peak_rss_bytes": usage.ru_maxrss * KIBIBYTE}


def _pack_bytes(pack: Path) -> int:
    return sum(entry.bytes for entry in read_pack(pack).manifest.files.values())


def table(results: Mapping[str, Any]) -> str:
    """Tables of the steps, the sizes, and the speed of the opened pack."""
    steps = [
        (name, f"{step['wall_s']:.0f}", f"{step['peak_rss_bytes'] / 1e9:.2f}")
        for name, step in results["steps"].items()
    ]
    sizes = [("checkpoint", f"{results['checkpoint_bytes'] / 1e9:.2f}")]
    sizes += [(f"pack, {name}", f"{size / 1e9:.2f}") for name, size in results["pack_bytes"].items()]
    opened = results["opened"]
    memory = {name: f"{size / 1e9:.2f} GB" for name, size in opened["after_load"].items()}
    lines = [
        f"load {opened['load_s']:.1f} s; resident {memory['rss']}, {memory['anonymous']} of it anonymous; "
        f"after a page {opened['after_page']['rss'] / 1e9:.2f} GB",
        f"int8 products alone: {opened['product_gops']:.0f} GOPS",
    ]
    speeds = []
    for name, run in opened["runs"].items():
        tokens, seconds = run["tokens"], run["wall_s"]
        speeds.append((name, tokens, f"{seconds:.2f}", f"{tokens / seconds:.1f}", f"{run['share']:.0%}"))
    adapters = [
        (name, cell(ratios["cpu"], 1, 3), cell(ratios["wall"], 1, 3))
        for name, ratios in (results.get("switchable_over_merged") or {}).items()
    ]
    return "\n\n".join(
        [
            text_table(("step", "s", "peak GB"), steps),
            text_table(("on disk", "GB"), sizes),
            "\n".join(lines),
            text_table(("input", "tokens", "s", "tokens/s", "of the speed of products alone"), speeds),
            *([text_table(("switchable over merged", "CPU", "wall"), adapters)] if adapters else []),
        ]
    )
