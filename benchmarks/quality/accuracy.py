"""Accuracy of a checkpoint: exports a pack in all weights formats, then measures it as `embedpack bench accuracy`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from embedpack import InputError
from embedpack.pack.folder import read_pack
from embedpack.pack.strict import WeightsFormat
from embedpack_export.commands.adapter_option import parse_adapters
from embedpack_export.evaluation.accuracy import measure_accuracy
from embedpack_export.evaluation.accuracy_text import accuracy_text
from embedpack_export.evaluation.options import EvaluationOptions
from embedpack_export.evaluation.results import AccuracyReport
from embedpack_export.metrics.non_inferiority import MARGIN
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.opening import ReferenceSource

SUMMARY = "Vectors and rankings of every variant, compared with the full-precision torch model."
EXAMPLES = """\
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --adapter retrieval=adapters --data data/eval
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --adapter retrieval=adapters --adapter code=adapters --data eval
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --pack packs/minilm --data data/eval --set code/nl2bash
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --data data/eval --limit 50 --name quick"""

SETS = ("retrieval/xquad-en", "retrieval/debian-desc-en", "code/nl2bash", "code/cosqa-dev", "sts/stsb-en-dev")
WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8", "int4")
# The export must succeed at any loss: this benchmark measures it.
MAX_LOSS = 100.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of the full-precision model")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the evaluation sets")
    parser.add_argument("--adapter", action="append", default=[], metavar="TASK=DIR", help="may be repeated")
    parser.add_argument(
        "--pack", type=Path, help="measure this pack of the checkpoint (default: export one to a temporary folder)"
    )
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--no-multi", action="store_true", help="skip multi-vectors, which take two thirds of the time")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N queries of each set and few documents, for a quick run"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all tasks of a pack that have sets.

    Raises:
        InputError: an option or a set cannot be used, or the pack is not of this checkpoint and these adapters.
        MissingExtraError: torch, transformers, peft, ir-measures or scipy are not installed.
    """
    adapters = parse_adapters(options.adapter)
    with _pack(options, adapters) as pack:
        report = measure_accuracy(
            EvaluationOptions(
                pack=pack,
                data=options.data,
                reference=ReferenceSource(options.checkpoint, adapters, cache=None),
                sets=options.sets or SETS,
                multi=not options.no_multi,
                margin=MARGIN,
                limit=options.limit,
                seed=options.seed,
                threads=options.threads,
            )
        )
        tools = read_pack(pack).manifest.export.tools
    return {"exported_with": tools, "accuracy": msgspec.to_builtins(report)}


@contextmanager
def _pack(options: argparse.Namespace, adapters: Mapping[str, Path]) -> Iterator[Path]:
    """Yield the folder of the pack to measure."""
    if options.pack is not None:
        yield options.pack
        return
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "pack"
        export(
            ExportSettings(
                checkpoint=options.checkpoint, output=pack, adapters=adapters, weights=WEIGHTS, allow_loss=MAX_LOSS
            )
        )
        yield pack


def table(results: Mapping[str, Any]) -> str:
    """Format the results as `embedpack bench accuracy` does.

    Raises:
        InputError: the file is of an older version of this benchmark.
    """
    if "accuracy" not in results:
        raise InputError("these figures are of an older benchmark of accuracy; measure again to see their table")
    return accuracy_text(msgspec.convert(results["accuracy"], AccuracyReport))
