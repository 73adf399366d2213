"""Command line of the benchmarks: run one, print its table, write its results with their provenance as JSON."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.arguments import add_number, program
from benchmarks.host import footprint, long_texts, prepared, server, server_soak, soak
from benchmarks.quality import (
    accuracy,
    activation_outliers,
    codes,
    decoders,
    families,
    late_chunks,
    modality_gap,
    multi,
    outlier_int8,
    weights,
)
from benchmarks.roofline import roofline
from benchmarks.search import search, two_stage
from benchmarks.speed import adapters, encode, pairs, speed
from embedpack import EmbedpackError
from embedpack.host.cores import available_cores
from embedpack.storage.atomic import atomic_file
from embedpack_export.evaluation.provenance import provenance

RESULTS = Path(__file__).parent / "results"
SEED = 20261121
EXAMPLES = """examples:
  python -m benchmarks speed packs/minilm
  python -m benchmarks accuracy -h
  python -m benchmarks show benchmarks/results/codes.json"""


class Benchmark(Protocol):
    """Interface of a benchmark's module; `table` formats the results of `run`, read back from JSON."""

    SUMMARY: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None: ...

    def run(self, options: argparse.Namespace, /) -> dict[str, Any]: ...

    def table(self, results: Mapping[str, Any], /) -> str: ...


BENCHMARKS: Mapping[str, Benchmark] = {
    "accuracy": accuracy,
    "weights": weights,
    "codes": codes,
    "modality-gap": modality_gap,
    "multi": multi,
    "late-chunking": late_chunks,
    "decoders": decoders,
    "families": families,
    "outliers": activation_outliers,
    "outlier-int8": outlier_int8,
    "speed": speed,
    "roofline": roofline,
    "encode": encode,
    "pairs": pairs,
    "adapters": adapters,
    "footprint": footprint,
    "prepared": prepared,
    "long-texts": long_texts,
    "soak": soak,
    "server": server,
    "server-soak": server_soak,
    "search": search,
    "two-stage": two_stage,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _show(options.file) if options.benchmark == "show" else _measure(options)
    except EmbedpackError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


def _measure(options: argparse.Namespace) -> int:
    conditions = provenance(options.threads or available_cores(), options.seed)
    results = BENCHMARKS[options.benchmark].run(options)
    report = {
        "benchmark": options.benchmark,
        "command": command_line(sys.argv[1:]),
        "provenance": conditions,
        "results": results,
    }
    path = RESULTS / f"{options.name or options.benchmark}.json"
    with atomic_file(path) as stream:
        stream.write(json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
    _show(path)
    print(f"\nwritten: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 0


def command_line(arguments: Sequence[str]) -> str:
    """Command that repeats a run; of paths outside the repository only the last part stays."""
    return " ".join(["python -m benchmarks", *map(_portable, arguments)])


def _portable(argument: str) -> str:
    name, equals, value = argument.rpartition("=")
    outside = Path(value).is_absolute() or ".." in Path(value).parts
    return name + equals + (Path(value).name if outside else value)


def _show(path: Path) -> int:
    report = json.loads(path.read_text("utf-8"))
    conditions = report["provenance"]
    dirty = " with local changes" if conditions["git"]["dirty"] else ""
    print(report["command"])
    print(
        f"{conditions['cpu']['model']}, {conditions['cpu']['cores']} cores, load {conditions['load_average']}; "
        f"embedpack {conditions['embedpack']}, commit {str(conditions['git']['commit'])[:10]}{dirty}; "
        f"onnxruntime {conditions['packages']['onnxruntime']}; {conditions['date']}\n"
    )
    print(BENCHMARKS[report["benchmark"]].table(report["results"]))
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Measure packs. benchmarks/README.md describes every benchmark."
    parser = program("benchmarks", description, EXAMPLES)
    commands = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True, dest="benchmark")
    for name, benchmark in BENCHMARKS.items():
        sub = commands.add_parser(
            name,
            help=benchmark.SUMMARY,
            description=benchmark.SUMMARY,
            epilog=f"examples:\n{benchmark.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        benchmark.add_arguments(sub)
        threads = sub.get_default("threads") or "available cores"
        sub.add_argument("--threads", type=int, metavar="N", help=f"number of threads; default: {threads}")
        add_number(sub, "--seed", SEED, "random seed")
        sub.add_argument("--name", metavar="NAME", help=f"name of the file in benchmarks/results; default: {name}")
    summary = "Print the table of a results file."
    show = commands.add_parser(
        "show",
        help=summary,
        description=summary,
        epilog="example:\n  python -m benchmarks show benchmarks/results/codes.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("file", type=Path, metavar="FILE", help="file in benchmarks/results")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
