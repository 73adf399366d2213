"""Benchmark of long texts: time and memory of one text by its length."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number
from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.worker import LongTextJob, measure_long_text
from benchmarks.spreads import cell, spread
from embedpack.host.cores import available_cores
from embedpack.pack.folder import Pack, read_pack
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Time and memory of one text by its length in tokens."
EXAMPLES = """\
  python -m benchmarks.checkpoints.make_encoder gte packs/source-gte
  embedpack export packs/source-gte -o packs/gte --pooling mean --weights fp32 --weights int8 --reference graph \\
    --calibrate packs/source-gte/calibration.jsonl
  python -m benchmarks long-texts packs/gte"""
LENGTHS = (512, 1024, 2048, 4096, 8192)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="folder of a pack")
    parser.add_argument("--variant", metavar="V", help="variant to measure; default: each one of a pack")
    parser.add_argument("--tokens", type=int, nargs="+", default=LENGTHS, metavar="N", help="lengths of the text")
    add_number(parser, "--repetitions", 3, "processes for each length")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure each length in processes of its own, the lengths of a pack interleaved.

    Raises:
        EmbedpackError: a pack is broken, or a worker failed.
    """
    return {
        "repetitions": options.repetitions,
        "models": [
            _model(pack, variant, options)
            for pack in map(read_pack, options.packs)
            for variant in ([options.variant] if options.variant else pack.manifest.variants)
        ],
    }


def _model(pack: Pack, variant: str, options: argparse.Namespace) -> dict[str, Any]:
    measured: dict[int, list[Mapping[str, Any]]] = {length: [] for length in options.tokens}
    for _ in range(options.repetitions):
        for length, runs in measured.items():
            job = LongTextJob(
                pack=str(pack.folder.resolve()),
                variant=variant,
                threads=options.threads or available_cores(),
                tokens=length,
            )
            runs.append(in_fresh_process(measure_long_text, job))
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "variant": variant,
        "weights": pack.manifest.variants[variant].weights,
        "loaded_bytes": spread([run["loaded_bytes"] for runs in measured.values() for run in runs]),
        "lengths": {str(length): _spreads(runs) for length, runs in measured.items()},
    }


def _spreads(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: spread([run[name] for run in runs]) for name in ("extra_bytes", "planned_bytes", "wall_s", "cpu_s")}


def table(results: Mapping[str, Any]) -> str:
    """Table of the lengths of each pack."""
    header = ("model", "variant", "tokens", "extra memory MB", "estimate MB", "wall s", "CPU s", "tokens/s")
    rows = []
    for model in results["models"]:
        for length, found in model["lengths"].items():
            speed = int(length) / found["wall_s"]["median"]
            rows.append(
                (
                    model["model"],
                    model["variant"],
                    length,
                    cell(found["extra_bytes"], 1e-6, 0),
                    f"{found['planned_bytes']['median'] / 1e6:.0f}",
                    cell(found["wall_s"], 1, 2),
                    cell(found["cpu_s"], 1, 2),
                    f"{speed:.0f}",
                )
            )
    return text_table(header, rows)


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table in the documents: memory, and CPU time next to that of the shortest text."""
    rows = []
    for model in results["models"]:
        first = next(iter(model["lengths"].values()))["cpu_s"]["median"]
        for length, found in model["lengths"].items():
            seconds = found["cpu_s"]["median"]
            megabytes = f"{found['extra_bytes']['median'] / 1e6:.0f} MB"
            rows.append(
                [model["model"], model["weights"], length, megabytes, f"{seconds:.1f} s", f"{seconds / first:.1f}x"]
            )
    return rows
