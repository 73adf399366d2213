"""embedpack bench: the accuracy that a pack keeps of its model, and the cheapest setting within a margin."""

from __future__ import annotations

import argparse
from typing import Any

from embedpack.cli.output import STANDARD_OUTPUT, check_output, write_json
from embedpack.extras import check_extras
from embedpack_export.commands.bench_options import (
    add_accuracy,
    add_sweep,
    check_first_stage,
    evaluation_options,
)

SUMMARY = "Measure accuracy compared with the full-precision model, and the cost of each setting."
EXAMPLES = """\
  embedpack bench accuracy packs/minilm --data eval --reference models/all-MiniLM-L6-v2 --adapter retrieval=adapters
  embedpack bench accuracy packs/minilm --data data/eval --precision binary --max-loss 2 --json accuracy.json
  embedpack bench accuracy packs/reranker --first-stage packs/minilm --data data/eval
  embedpack bench sweep packs/minilm --data data/eval --max-loss 0.5 --html sweep.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands `accuracy` and `sweep`."""
    commands = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    add_accuracy(commands).set_defaults(measure=_accuracy)
    add_sweep(commands).set_defaults(measure=_sweep)


def run(options: argparse.Namespace) -> int:
    """Run `accuracy` or `sweep`; returns the exit status."""
    # Before hours of work.
    for path in (options.json, vars(options).get("html")):
        check_output(path, (options.data, options.pack), overwrite=options.overwrite)
    check_extras(
        "export",
        "bench",
        *(["reference"] if options.reference is not None else []),
        *(["mteb"] if vars(options).get("mteb") else []),
    )
    status: int = options.measure(options)
    return status


def _accuracy(options: argparse.Namespace) -> int:
    from embedpack.pack.folder import read_pack

    is_reranker = read_pack(options.pack).manifest.kind == "reranker"
    check_first_stage(options, is_reranker=is_reranker)
    return _reranking(options) if is_reranker else _vectors(options)


def _reranking(options: argparse.Namespace) -> int:
    from embedpack_export.evaluation.reranking.accuracy import measure_reranking
    from embedpack_export.evaluation.reranking.options import FirstStage, RerankingOptions
    from embedpack_export.evaluation.reranking.text import reranking_text

    first_stage = FirstStage(pack=options.first_stage, depth=options.depth or FirstStage.depth)
    report = measure_reranking(RerankingOptions(evaluation=evaluation_options(options), first_stage=first_stage))
    if options.json != STANDARD_OUTPUT:
        print(reranking_text(report))
    _write_json(options, {"reranking": report})
    return 0 if report.passed else 1


def _vectors(options: argparse.Namespace) -> int:
    from embedpack_export.evaluation.accuracy import measure_accuracy
    from embedpack_export.evaluation.accuracy_text import accuracy_text

    report = measure_accuracy(
        evaluation_options(options),
        precisions=options.precision,
        truncate_dims=options.truncate_dim,
        mteb=tuple(dict.fromkeys(options.mteb)),
    )
    if options.json != STANDARD_OUTPUT:
        print(accuracy_text(report))
    _write_json(options, {"accuracy": report})
    return 0 if report.passed else 1


def _sweep(options: argparse.Namespace) -> int:
    from embedpack.storage.atomic import atomic_file
    from embedpack_export.evaluation.sweep import sweep
    from embedpack_export.evaluation.sweep_page import sweep_page
    from embedpack_export.evaluation.sweep_text import sweep_text
    from embedpack_export.html.page import html

    report = sweep(evaluation_options(options))
    if options.json != STANDARD_OUTPUT:
        print(sweep_text(report))
    _write_json(options, {"sweep": report})
    if options.html is not None:
        with atomic_file(options.html) as stream:
            stream.write(html(sweep_page(report)).encode())
    return 0 if report.passed else 1


def _write_json(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    if options.json is None:
        return
    import json

    import msgspec

    from embedpack_export.evaluation.provenance import provenance

    content = {**figures, "provenance": provenance(options.threads, options.seed)}
    write_json(options.json, json.dumps(msgspec.to_builtins(content), indent=1, ensure_ascii=False).encode())
