"""Speed of pairs: one query and many documents, by a reranker's pack and by other programs with the same weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number, add_pack
from benchmarks.fresh_process import in_fresh_process
from benchmarks.speed.pairs_worker import INT8, PairsJob, measure_pairs
from benchmarks.spreads import cell, spread
from embedpack.errors import InputError
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Time of scoring one query and 100 documents, next to sentence-transformers, onnxruntime and fastembed."
EXAMPLES = """\
  python -m benchmarks pairs packs/reranker --checkpoint models/minilm --adapter adapters/reranker
  python -m benchmarks pairs packs/reranker --checkpoint models/minilm --adapter adapters/reranker --repetitions 1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="backbone of the reranker")
    parser.add_argument("--adapter", type=Path, required=True, metavar="DIR", help="PEFT adapter with the classifier")
    add_number(parser, "--documents", 100, "documents of the query")
    add_number(parser, "--tokens", 128, "tokens of a document")
    add_number(parser, "--repetitions", 5, "repetitions; the programs are interleaved")
    parser.set_defaults(threads=1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all programs in one process.

    Raises:
        InputError: the number of threads is not one.
        EmbedpackError: the worker failed.
    """
    if options.threads != 1:
        raise InputError(f"--threads is {options.threads}; pairs are measured on one thread, so leave it out")
    job = PairsJob(
        pack=str(options.pack.resolve()),
        checkpoint=str(options.checkpoint.resolve()),
        adapter=str(options.adapter.resolve()),
        documents=options.documents,
        tokens=options.tokens,
        repetitions=options.repetitions,
        seed=options.seed,
    )
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    measured = in_fresh_process(measure_pairs, job, one_thread)
    ours = measured["seconds"][INT8]
    rows = [
        {
            "program": name,
            "wall_s": spread(seconds["wall_s"]),
            "cpu_s": spread(seconds["cpu_s"]),
            **{f"{clock}_over_int8": spread(_ratios(seconds[clock], ours[clock])) for clock in ("wall_s", "cpu_s")},
            "largest_difference": measured["differences"][name],
        }
        for name, seconds in measured["seconds"].items()
    ]
    return {"documents": options.documents, "tokens": options.tokens, "rows": rows, "missing": measured["missing"]}


def _ratios(seconds: list[float], ours: list[float]) -> list[float]:
    return [value / own for value, own in zip(seconds, ours, strict=True)]


def table(results: Mapping[str, Any]) -> str:
    """Table of all programs."""
    rows = [
        (
            row["program"],
            cell(row["wall_s"], 1000, 0),
            cell(row["cpu_s"], 1000, 0),
            cell(row["wall_s_over_int8"], 1, 2),
            cell(row["cpu_s_over_int8"], 1, 2),
            f"{row['largest_difference']:.4f}",
        )
        for row in results["rows"]
    ]
    header = ("program", "ms", "CPU ms", "time / int8", "CPU time / int8", "largest difference of scores")
    lines = [f"1 query, {results['documents']} documents of {results['tokens']} tokens", text_table(header, rows)]
    lines += [f"missing: {name}: {reason}" for name, reason in results["missing"].items()]
    return "\n\n".join(lines)


HEADER = ("int8 compared with", "by CPU time", "largest difference of its scores")


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the other programs, for a document."""
    return [
        [row["program"], f"{row['cpu_s_over_int8']['median']:.2f}x", f"{row['largest_difference']:.4f}"]
        for row in results["rows"]
        if row["program"] != INT8
    ]
