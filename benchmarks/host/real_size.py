"""Export and use of a checkpoint of the size of a published model with random weights: time, memory, bytes.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.embedder_worker import InputJob, measure_inputs
from benchmarks.timing import KIBIBYTE
from embedpack import EmbedpackError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack.pack.strict import AdapterMode
from embedpack_export.evaluation.provenance import ROOT
from embedpack_export.evaluation.text_table import text_table


@dataclass(frozen=True)
class RealModel:
    """A published model: program that writes a checkpoint of its layout, and its export."""

    maker: str  # module, which takes a folder and --size
    export: tuple[str, ...]  # options of the export
    adapters: AdapterMode
    task: str  # task of the texts
    note: str  # description of the export


# The torch reference, which the export takes by itself where it fits into memory, would decide the peak.
_EXACT = ("--weights", "int8", "--reference", "graph", "--max-loss", "100")
MODELS: Mapping[str, RealModel] = {
    "jina-embeddings-v3": RealModel(
        "benchmarks.checkpoints.make_v3",
        (*_EXACT, "--adapters", "switchable"),
        "switchable",
        "retrieval.query",
        "switchable, all tasks",
    ),
    "jina-clip-v2": RealModel(
        "benchmarks.checkpoints.make_clip",
        (*_EXACT, "--adapters", "merged"),
        "merged",
        "retrieval",
        "texts and images",
    ),
    "jina-embeddings-v4": RealModel(
        "benchmarks.checkpoints.make_v4",
        (*_EXACT, "--adapters", "merged", "--task", "retrieval"),
        "merged",
        "retrieval",
        "merged, one task",
    ),
}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Write a checkpoint, export it, open the pack and encode; only a checkpoint that was there before is kept.

    Raises:
        EmbedpackError: a step failed.
    """
    model, folder = MODELS[name], Path(options.make)
    checkpoint, pack = folder / "checkpoint", folder / "pack"
    steps = {}
    if not checkpoint.exists():
        steps["make"] = _step([sys.executable, "-m", model.maker, str(checkpoint), "--size", "real"])
    shutil.rmtree(pack, ignore_errors=True)
    command = [sys.executable, "-m", "embedpack", "export", str(checkpoint), "-o", str(pack), *model.export]
    command += ["--calibrate", str(options.calibrate)] if options.calibrate else []
    steps[f"export {model.note}"] = _step(command)
    job = InputJob(
        pack=str(pack.resolve()),
        task=model.task,
        adapters=model.adapters,
        threads=options.threads or available_cores(),
        seed=options.seed,
    )
    return {
        "model": name,
        "checkpoint_bytes": sum(path.stat().st_size for path in checkpoint.rglob("*.safetensors")),
        "steps": steps,
        "pack_bytes": {model.note: _pack_bytes(pack)},
        "opened": in_fresh_process(measure_inputs, job),
    }


def _step(command: Sequence[str]) -> dict[str, float]:
    """Run a command; return its seconds, its seconds on a CPU and its peak resident memory, mapped files included."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise EmbedpackError(f"{' '.join(command[1:4])} failed; its message is above")
    return {
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_bytes": usage.ru_maxrss * KIBIBYTE,
    }


def _pack_bytes(pack: Path) -> int:
    return sum(entry.bytes for entry in read_pack(pack).manifest.files.values())


def document_line(report: Mapping[str, Any]) -> str:
    """Sentence of docs/speed.md."""
    results = report["results"]["real_size"]
    (name, step), *_ = ((name, step) for name, step in results["steps"].items() if name.startswith("export"))
    (pack,) = results["pack_bytes"].values()
    loaded, after = results["opened"]["after_load"]["rss"], results["opened"]["after_texts"]["rss"]
    few = " with few calibration texts" if "--calibrate" in report["command"] else ""
    checkpoint, peak = results["checkpoint_bytes"] / 1e9, step["peak_rss_bytes"] / 1e9
    return (
        f"Random weights in the layout of {results['model']}, {checkpoint:.2f} GB: {name}, int8, has a peak of "
        f"{peak:.2f} GB of memory and takes {step['cpu_s'] / 60:.0f} minutes of CPU time{few}; the pack has "
        f"{pack / 1e9:.2f} GB; a process has {loaded / 1e9:.2f} GB after loading it and {after / 1e9:.2f} GB after "
        "texts of up to 512 tokens."
    )


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
    after = [
        f"after {name} {opened[f'after_{name}']['rss'] / 1e9:.2f} GB"
        for name in ("texts", "page")
        if f"after_{name}" in opened
    ]
    lines = [
        f"load {opened['load_s']:.1f} s; resident {memory['rss']}, {memory['anonymous']} of it anonymous; "
        + ", ".join(after),
        f"int8 products alone: {opened['product_gops']:.0f} GOPS",
    ]
    speeds = []
    for name, run in opened["runs"].items():
        tokens, seconds = run["tokens"], run["wall_s"]
        speeds.append((name, tokens, f"{seconds:.2f}", f"{tokens / seconds:.1f}", f"{run['share']:.0%}"))
    return "\n\n".join(
        [
            text_table(("step", "s", "peak GB"), steps),
            text_table(("on disk", "GB"), sizes),
            "\n".join(lines),
            text_table(("input", "tokens", "s", "tokens/s", "of the speed of products alone"), speeds),
        ]
    )
