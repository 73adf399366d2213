"""Search on one core: bits beside faiss, and two stages beside float32 brute force, in turns in one process."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks.jobs import ScanJob, StagesJob, in_fresh_process
from benchmarks.search.worker import BATCHES, BRUTE_FORCE, MEMBERS, OVERSAMPLES, SLOPE, SPREAD
from benchmarks.spreads import cell, spread
from embedpack.errors import InputError
from embedpack.progress import Progress
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Time of a search: bits beside faiss, two stages beside float32 brute force."
EXAMPLES = """\
  python -m benchmarks search
  python -m benchmarks search --dimensions 384 --repetitions 9
  python -m benchmarks search --rows 100000 --repetitions 1 --name trial"""

WORKER = "benchmarks.search.worker"
SCANNED_BITS, SCANNED_K = 2048, 100
STAGES_K, STAGES_FOUND = 10, 0.99
# Of the float32 matrix, 4 GB: with more dimensions there are fewer rows.
STAGES_VALUES = 1 << 30
# Read by the libraries when they are loaded, so set before the process begins.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="documents; default: %(default)s")
    parser.add_argument(
        "--dimensions",
        type=int,
        nargs="+",
        default=[384, 1024, 2048],
        metavar="D",
        help="of two stages; default: 384 1024 2048",
    )
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="of every call; default: %(default)s")
    parser.set_defaults(threads=1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the scan of bits, then two stages for each number of dimensions.

    Raises:
        InputError: more threads than one are asked for.
        EmbedpackError: a worker failed.
    """
    if options.threads != 1:
        raise InputError(f"--threads is {options.threads}; search is measured on one core, so leave it out")
    scan = ScanJob(
        rows=options.rows, bits=SCANNED_BITS, k=SCANNED_K, repetitions=options.repetitions, seed=options.seed
    )
    stages = [
        StagesJob(
            rows=min(options.rows, STAGES_VALUES // dimensions),
            dimensions=dimensions,
            k=STAGES_K,
            found=STAGES_FOUND,
            repetitions=options.repetitions,
            seed=options.seed,
        )
        for dimensions in options.dimensions
    ]
    with Progress("measuring", 1 + len(stages)) as progress:
        scanned = in_fresh_process(scan, WORKER, ONE_THREAD)
        progress.advance(1)
        staged = []
        for job in stages:
            staged.append(in_fresh_process(job, WORKER, ONE_THREAD))
            progress.advance(1)
    return {
        "rows": options.rows,
        "repetitions": options.repetitions,
        "scan": {
            "bits": SCANNED_BITS,
            "k": SCANNED_K,
            "codes": "random",
            "calls": _calls(scanned["seconds"], "faiss"),
            "peak_bytes": scanned["peak_bytes"],
        },
        "vectors": (
            f"mixture of Gaussians brought to length 1, {MEMBERS} members a cluster, spread {SPREAD} of the centres', "
            f"variance along the i-th of its randomly rotated axes i ** -{SLOPE}; queries are drawn like documents"
        ),
        "stages": [
            {
                "rows": job.rows,
                "dimensions": job.dimensions,
                "k": STAGES_K,
                "found": found["found"],
                "oversample": found["oversample"],
                "calls": _calls(found["seconds"], BRUTE_FORCE),
                "peak_bytes": found["peak_bytes"],
            }
            for job, found in zip(stages, staged, strict=True)
        ],
    }


def _calls(measured: Mapping[str, Mapping[str, Mapping[str, list[float]]]], baseline: str) -> list[dict[str, Any]]:
    """A row for each batch and way; ratios are taken within each repetition, where the baseline is there."""
    rows = []
    for batch in map(str, BATCHES):
        for name, batches in measured.items():
            row: dict[str, Any] = {"queries": int(batch), "by": name}
            for clock, seconds in batches[batch].items():
                row[clock] = spread(seconds)
                if baseline in measured:
                    pairs = zip(seconds, measured[baseline][batch][clock], strict=True)
                    row[f"{clock}_over_{baseline}"] = spread([ours / theirs for ours, theirs in pairs])
            rows.append(row)
    return rows


def table(results: Mapping[str, Any]) -> str:
    """Bits, then for two stages what each oversample finds and what it takes."""
    scan, stages = results["scan"], results["stages"]
    parts = [f"top {scan['k']} of {results['rows']} x {scan['bits']} random bits", _table(scan["calls"], "faiss")]
    if not any(row["by"] == "faiss" for row in scan["calls"]):
        parts.append("faiss is not installed: no ratios")
    parts.append(f"vectors: {results['vectors']}")
    columns = [(row, rescore) for row in stages for rescore in row["found"]]
    parts.append(
        text_table(
            (f"part of top {STAGES_K} found", *(f"{row['dimensions']}, {rescore}" for row, rescore in columns)),
            [
                (f"oversample {oversample}", *(f"{row['found'][rescore][oversample]:.2%}" for row, rescore in columns))
                for oversample in map(str, OVERSAMPLES)
            ],
        )
    )
    for row in stages:
        chosen = ", ".join(f"{oversample} with {rescore}" for rescore, oversample in row["oversample"].items())
        parts.append(f"{row['rows']} x {row['dimensions']}, bits and then exact scores; oversample {chosen}")
        parts.append(_table(row["calls"], BRUTE_FORCE))
    return "\n\n".join(parts)


def _table(calls: list[dict[str, Any]], baseline: str) -> str:
    rows = [
        (
            row["by"],
            row["queries"],
            cell(row["wall_s"], 1000, 1),
            f"{1000 * row['cpu_s']['median'] / row['queries']:.1f}",
            cell(row.get(f"wall_s_over_{baseline}"), 1, 3),
            cell(row.get(f"cpu_s_over_{baseline}"), 1, 3),
        )
        for row in calls
    ]
    ratio = f"of {baseline}'s time"
    return text_table(("by", "queries", "ms a call", "CPU ms a query", ratio, "in CPU time"), rows)
