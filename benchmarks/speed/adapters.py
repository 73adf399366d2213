"""Adapters benchmark: time of texts with switchable adapters, relative to the same adapter merged into the weights.

Both variants of a pack are opened in one process and called in turns, so that a slow minute affects both.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number
from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.embedder_worker import TEXT_TOKENS, text_of
from benchmarks.jobs import Job
from benchmarks.spreads import Spread, cell, spread
from benchmarks.timing import once
from embedpack import Embedder
from embedpack.errors import InputError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Time with switchable adapters, relative to merged ones."
EXAMPLES = """\
  python -m benchmarks adapters packs/v3 packs/v5-small
  python -m benchmarks adapters packs/v3 --repetitions 5 --name quick"""

logger = logging.getLogger("benchmarks")


class AdapterJob(Job, frozen=True, kw_only=True):
    """A pack with both adapter modes in a weights format, and a task, to measure in some repetitions."""

    pack: str
    task: str
    weights: str
    threads: int
    repetitions: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument(
        "packs",
        nargs="+",
        type=Path,
        metavar="PACK",
        help="packs that were exported with --adapters merged --adapters switchable",
    )
    add_number(parser, "--repetitions", 15, "repetitions of every time")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure each pack with the adapter of its first task that has one.

    Raises:
        InputError: a pack has no int8 variants of both modes, or no adapter.
        EmbedpackError: a worker failed.
    """
    jobs = [_job(path, options) for path in options.packs]
    return {"repetitions": options.repetitions, "rows": [row for job in jobs for row in _measured(job)]}


def _job(path: Path, options: argparse.Namespace) -> AdapterJob:
    manifest = read_pack(path).manifest
    modes = {variant.adapters for variant in manifest.variants.values() if variant.weights == "int8"}
    tasks = [name for name, task in manifest.tasks.items() if task.adapter is not None]
    if modes != {"merged", "switchable"} or not tasks:
        raise InputError(f"{path}: needs int8 with merged and with switchable adapters; export it with both --adapters")
    return AdapterJob(
        pack=str(path.resolve()),
        task=tasks[0],
        weights="int8",
        threads=options.threads or available_cores(),
        repetitions=options.repetitions,
    )


def _measured(job: AdapterJob) -> list[dict[str, Any]]:
    logger.info("%s", job.pack)
    manifest = read_pack(Path(job.pack)).manifest
    ratios = in_fresh_process(measure_adapters, job)
    described = {"model": Path(job.pack).name, "family": manifest.family, "task": job.task, "weights": job.weights}
    return [{**described, "tokens": tokens, **ratios[str(tokens)]} for tokens in TEXT_TOKENS]


def measure_adapters(job: AdapterJob) -> dict[str, dict[str, Spread]]:
    """Measure CPU and wall time of a text with the switchable adapter over those with the merged one, by tokens."""
    merged = Embedder(job.pack, task=job.task, weights="int8", adapters="merged", threads=job.threads)
    switchable = Embedder(job.pack, task=job.task, weights="int8", adapters="switchable", threads=job.threads)
    ratios = {}
    for tokens in TEXT_TOKENS:
        text = text_of(merged, tokens)
        merged.encode(text)
        switchable.encode(text)
        times = [
            (once(partial(merged.encode, text)), once(partial(switchable.encode, text))) for _ in range(job.repetitions)
        ]
        ratios[str(tokens)] = {
            kind: spread([second[kind] / first[kind] for first, second in times]) for kind in ("wall_s", "cpu_s")
        }
    return ratios


HEADER = ["model", "task", "tokens", "switchable over merged, CPU", "wall"]


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table in docs/speed.md."""
    return [
        [row["model"], row["task"], str(row["tokens"]), cell(row["cpu_s"], 1, 2), cell(row["wall_s"], 1, 2)]
        for row in results["rows"]
    ]


def table(results: Mapping[str, Any]) -> str:
    """Format the ratios of every pack and length."""
    return text_table(HEADER, document_rows(results))
