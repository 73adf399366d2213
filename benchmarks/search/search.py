"""Search benchmark on one core: a scan of bits compared with faiss, two stages compared with float32 brute force."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.arguments import add_number
from benchmarks.fresh_process import in_fresh_process
from benchmarks.search.worker import (
    BATCHES,
    BRUTE_FORCE,
    MEMBERS,
    OVERSAMPLES,
    SLOPE,
    SPREAD,
    ScanJob,
    StagesJob,
    measure_scan,
    measure_stages,
)
from benchmarks.spreads import cell, spread
from embedpack.errors import InputError
from embedpack.progress import Progress
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Time of a search: bits compared with faiss, two stages compared with float32 brute force."
EXAMPLES = """\
  python -m benchmarks search
  python -m benchmarks search --dimensions 384 --repetitions 9
  python -m benchmarks search --rows 100000 --repetitions 1 --name quick"""

SCAN_BITS, SCAN_K = 2048, 100
STAGES_K, STAGES_RECALL = 10, 0.99
# Values of the float32 matrix, 4 GB: more dimensions mean fewer rows.
MAX_VALUES = 1 << 30
# The libraries read these variables when they are loaded.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
VECTORS = (
    f"mixture of Gaussians brought to length 1, {MEMBERS} members a cluster, spread {SPREAD} of the centres', "
    f"variance along the i-th of its randomly rotated axes i ** -{SLOPE}; queries are drawn like documents"
)

Seconds = Mapping[str, Mapping[str, Mapping[str, list[float]]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_number(parser, "--rows", 1_000_000, "number of documents")
    parser.add_argument(
        "--dimensions",
        type=int,
        nargs="+",
        default=[384, 1024, 2048],
        metavar="D",
        help="dimensions of the two-stage search; default: 384 1024 2048",
    )
    add_number(parser, "--repetitions", 5, "repetitions of every call")
    parser.set_defaults(threads=1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the scan of bits, then two stages for each number of dimensions.

    Raises:
        InputError: the number of threads is not one.
        EmbedpackError: a worker failed.
    """
    if options.threads != 1:
        raise InputError(f"--threads is {options.threads}; search is measured on one core, so leave it out")
    scan = ScanJob(rows=options.rows, bits=SCAN_BITS, k=SCAN_K, repetitions=options.repetitions, seed=options.seed)
    stages = [
        StagesJob(
            rows=min(options.rows, MAX_VALUES // dimensions),
            dimensions=dimensions,
            k=STAGES_K,
            recall=STAGES_RECALL,
            repetitions=options.repetitions,
            seed=options.seed,
        )
        for dimensions in options.dimensions
    ]
    measured = []
    with Progress("measuring", 1 + len(stages)) as progress:
        scanned = in_fresh_process(measure_scan, scan, ONE_THREAD)
        progress.advance(1)
        for job in stages:
            measured.append(_stages_row(job, in_fresh_process(measure_stages, job, ONE_THREAD)))
            progress.advance(1)
    return {
        "rows": options.rows,
        "repetitions": options.repetitions,
        "scan": {
            "bits": SCAN_BITS,
            "k": SCAN_K,
            "codes": "random",
            "calls": _calls(scanned["seconds"], "faiss"),
            "peak_bytes": scanned["peak_bytes"],
        },
        "vectors": VECTORS,
        "stages": measured,
    }


def _stages_row(job: StagesJob, results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rows": job.rows,
        "dimensions": job.dimensions,
        "k": job.k,
        "recall": results["recall"],
        "oversample": results["oversample"],
        "calls": _calls(results["seconds"], BRUTE_FORCE),
        "peak_bytes": results["peak_bytes"],
    }


def _calls(seconds: Seconds, baseline: str) -> list[dict[str, Any]]:
    """A row for each batch and method, with ratios to the baseline, if measured, of the same repetition."""
    rows = []
    for batch in map(str, BATCHES):
        for name, batches in seconds.items():
            row: dict[str, Any] = {"queries": int(batch), "by": name}
            for clock, values in batches[batch].items():
                row[clock] = spread(values)
                if baseline in seconds:
                    pairs = zip(values, seconds[baseline][batch][clock], strict=True)
                    row[f"{clock}_over_{baseline}"] = spread([value / other for value, other in pairs])
            rows.append(row)
    return rows


def table(results: Mapping[str, Any]) -> str:
    """Table of the scan, then recall and time of two stages."""
    scan, stages = results["scan"], results["stages"]
    parts = [f"top {scan['k']} of {results['rows']} x {scan['bits']} random bits", _table(scan["calls"], "faiss")]
    if not any(row["by"] == "faiss" for row in scan["calls"]):
        parts.append("faiss is not installed: no ratios")
    parts += [f"vectors: {results['vectors']}", _recalls(stages)]
    for row in stages:
        chosen = ", ".join(f"{oversample} with {rescore}" for rescore, oversample in row["oversample"].items())
        parts.append(f"{row['rows']} x {row['dimensions']}, bits and then exact scores; oversample {chosen}")
        parts.append(_table(row["calls"], BRUTE_FORCE))
    return "\n\n".join(parts)


def _recalls(stages: Sequence[Mapping[str, Any]]) -> str:
    columns = [(row, rescore) for row in stages for rescore in row["recall"]]
    return text_table(
        (f"recall of the top {STAGES_K}", *(f"{row['dimensions']}, {rescore}" for row, rescore in columns)),
        [
            (f"oversample {oversample}", *(f"{row['recall'][rescore][oversample]:.2%}" for row, rescore in columns))
            for oversample in map(str, OVERSAMPLES)
        ],
    )


def _table(calls: Sequence[Mapping[str, Any]], baseline: str) -> str:
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
    header = ("method", "queries", "ms per call", "CPU ms per query", f"time / {baseline}", "by CPU time")
    return text_table(header, rows)
