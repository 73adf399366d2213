"""Outliers: largest inputs of a decoder's linear layers, at the first token of a text and at all others."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, record_stage
from embedpack_export.stages.inputs import text_inputs

SUMMARY = "Largest activations by layer, at the first token and at all others."
EXAMPLES = """\
  python -m benchmarks outliers models/SmolLM2-135M
  python -m benchmarks outliers models/Qwen2.5-Coder-0.5B --name outliers-qwen"""
MAX_ROWS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("decoder", type=Path, metavar="DECODER", help="folder of a Llama or Qwen2 checkpoint")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the shipped calibration texts through the decoder in float32 and record the largest inputs."""
    plan = make_plan(ExportSettings(checkpoint=options.decoder, output=Path("unused"), pooling="mean"))
    task = next(iter(plan.tasks.values()))
    inputs = text_inputs(plan, task, [])
    weights = Weights(plan.checkpoint, task.adapter, plan.model.rules, plan.is_text_tensor)
    run = ExactRun(inputs.feeds([]), weights, len(inputs.calibration))
    first: dict[str, float] = {}
    others: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(len(plan.model.text.stages)):
            for batch, site, values in record_stage(plan.model.text, index, run, Path(scratch)):
                sizes = np.abs(values).max(axis=2) * run.feeds[batch][ATTENTION_MASK]
                first[site] = max(first.get(site, 0.0), float(sizes[:, 0].max()))
                others[site] = max(others.get(site, 0.0), float(sizes[:, 1:].max(initial=0.0)))
    return {
        "decoder": options.decoder.name,
        "tokens": int(sum(batch.feeds[ATTENTION_MASK].sum() for batch in inputs.calibration)),
        "sites": {site: {"first": round(first[site], 2), "others": round(others[site], 2)} for site in first},
    }


def table(results: Mapping[str, Any]) -> str:
    """Format the layers with the largest inputs."""
    ordered = sorted(results["sites"].items(), key=lambda entry: -max(entry[1].values()))
    rows = [(site, f"{largest['first']:.0f}", f"{largest['others']:.0f}") for site, largest in ordered[:MAX_ROWS]]
    header = ("input of linear layers", "first token", "others")
    return f"{results['decoder']}, {results['tokens']} tokens\n\n{text_table(header, rows)}"
