"""Speed: every variant on fixed shapes and on texts of mixed lengths, each measurement in a process of its own."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job, MixedJob, ShapeJob, in_fresh_process
from benchmarks.spreads import cell, spread
from benchmarks.tables import table as text_table
from embedpack.errors import InputError, unknown
from embedpack.pack import Pack, read_pack
from embedpack.progress import Progress
from embedpack.threads import available_cores

SUMMARY = "Time of a call on fixed shapes, and tokens a second on texts of mixed lengths."
EXAMPLES = """\
  python -m benchmarks speed packs/minilm
  python -m benchmarks speed packs/minilm --threads 4 --repetitions 9
  python -m benchmarks speed packs/minilm --repetitions 1 --seconds 0.2 --name trial"""

SHAPES = ((1, 16), (1, 128), (32, 16), (32, 128))
BASELINE = "fp32"
# Above this load of others, times say more about them than about us.
BUSY = 0.2

logger = logging.getLogger("benchmarks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument("--task", help="whose variants; may be left out where the pack has one task")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="of everything; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls in a process; default: %(default)s")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants of a task, in turns.

    Raises:
        InputError: the pack has no such task.
        EmbedpackError: a worker failed.
    """
    pack = read_pack(options.pack)
    variants = _variants(pack, options.task)
    jobs = list(_jobs(options, variants))
    # Every job once, then every job again: a slow minute of the host hits all variants alike.
    measured: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    busy = os.getloadavg()[0]
    if busy > BUSY:
        logger.warning("this host is busy (load %.1f): ratios may hold, times do not", busy)
    with Progress("measuring", options.repetitions * len(jobs)) as progress:
        for _ in range(options.repetitions):
            for job in jobs:
                measured[job].append(in_fresh_process(job))
                progress.advance(1)
    rows = [_row(job, found, _partner(job, variants, measured)) for job, found in measured.items()]
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "exported_with": pack.manifest.export.tools,
        "repetitions": options.repetitions,
        "shapes": [row for row in rows if "rows" in row],
        "mixed": [row for row in rows if "batching" in row],
    }


def _variants(pack: Pack, task: str | None) -> dict[str, str]:
    """Names of the variants of a task, by weights."""
    tasks = tuple(pack.manifest.tasks)
    if task not in tasks and (task is not None or len(tasks) > 1):
        raise InputError(unknown("--task", task, tasks))
    wanted = task or tasks[0]
    return {item.weights: name for name, item in pack.manifest.variants.items() if item.task == wanted}


def _jobs(options: argparse.Namespace, variants: Mapping[str, str]) -> Iterator[Job]:
    pack, seed = str(options.pack.resolve()), options.seed
    threads = options.threads or available_cores()
    for rows, tokens in SHAPES:
        for count in sorted({1, threads}):
            for variant in variants.values():
                yield ShapeJob(
                    pack=pack,
                    variant=variant,
                    threads=count,
                    rows=rows,
                    tokens=tokens,
                    seconds=options.seconds,
                    seed=seed,
                )
    for ours in (True, False):
        for variant in variants.values():
            yield MixedJob(pack=pack, variant=variant, threads=threads, ours=ours, seed=seed)


def _partner(
    job: Job, variants: Mapping[str, str], measured: Mapping[Job, list[dict[str, Any]]]
) -> list[dict[str, Any]] | None:
    """What the same job gave for the baseline; None where the pack has no such variant."""
    return next(
        (
            found
            for other, found in measured.items()
            if other.variant == variants.get(BASELINE) and _without_variant(other) == _without_variant(job)
        ),
        None,
    )


def _without_variant(job: Job) -> tuple[object, ...]:
    values = tuple(getattr(job, name) for name in job.__struct_fields__ if name != "variant")
    return (type(job), *values)


def _row(job: Job, found: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": job.variant, "graph": found[0]["graph"], "threads": job.threads}
    if isinstance(job, ShapeJob):
        row |= {"rows": job.rows, "tokens": job.tokens}
    if isinstance(job, MixedJob):
        row |= {
            "batching": "embedpack" if job.ours else "64 in order, padded to the longest",
            "tokens": found[0]["tokens"],
            "tokens_computed": found[0]["tokens_computed"],
            "tokens_per_s": spread([item["tokens"] / item["wall_s"] for item in found]),
        }
    row |= {"wall_s": spread([item["wall_s"] for item in found]), "cpu_s": spread([item["cpu_s"] for item in found])}
    if baseline is not None:
        for name, key in (("speedup", "wall_s"), ("cpu_speedup", "cpu_s")):
            ratios = [other[key] / item[key] for other, item in zip(baseline, found, strict=True)]
            row[f"{name}_over_{BASELINE}"] = spread(ratios)
    return row


def table(results: Mapping[str, Any]) -> str:
    """Fixed shapes, then mixed lengths."""
    shapes = [
        (
            f"{row['rows']} x {row['tokens']}",
            row["threads"],
            row["variant"],
            cell(row["wall_s"], 1000, 2),
            f"{1000 * row['cpu_s']['median']:.2f}",
            cell(row.get(f"speedup_over_{BASELINE}"), 1, 2),
            cell(row.get(f"cpu_speedup_over_{BASELINE}"), 1, 2),
        )
        for row in results["shapes"]
    ]
    mixed = [
        (
            row["batching"],
            row["threads"],
            row["variant"],
            cell(row["tokens_per_s"], 1, 0),
            f"{row['tokens_computed'] / row['tokens'] - 1:.0%}",
            f"{row['cpu_s']['median']:.2f}",
            cell(row.get(f"speedup_over_{BASELINE}"), 1, 2),
            cell(row.get(f"cpu_speedup_over_{BASELINE}"), 1, 2),
        )
        for row in results["mixed"]
    ]
    ratio, cpu_ratio = f"times {BASELINE}", f"times {BASELINE} in CPU time"
    return "\n\n".join(
        [
            text_table(("shape", "threads", "variant", "ms a call", "CPU ms", ratio, cpu_ratio), shapes),
            text_table(("batching", "threads", "variant", "tokens/s", "padding", "CPU s", ratio, cpu_ratio), mixed),
        ]
    )
