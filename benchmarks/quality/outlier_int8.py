"""int8 with outliers: an encoder with planted outliers, in this int8 and in onnxruntime's dynamic int8."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.arguments import add_number
from benchmarks.checkpoints.make_outliers import FACTOR, HIDDEN, LARGE, LAYERS, MASSIVE, make_outliers
from benchmarks.peers.dynamic_int8 import dynamic_int8
from benchmarks.quality import activation_outliers
from embedpack.engine.loading import open_processor
from embedpack.engine.session import GraphSession
from embedpack.inputs.batching import pad
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING
from embedpack.vectors.arrays import Float32
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.cosines import row_cosines, summarise_cosines
from embedpack_export.pipeline import export
from embedpack_export.planning.calibration_texts import SHIPPED
from embedpack_export.planning.settings import LARGEST_LOSS, ExportSettings

SUMMARY = "int8 of an encoder with planted outliers, next to dynamic int8 of onnxruntime."
EXAMPLES = """\
  python -m benchmarks outlier-int8
  python -m benchmarks outlier-int8 --texts 20 --name quick"""
MAX_SITES = 6
Ids = npt.NDArray[np.int64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_number(parser, "--texts", 240, "shipped texts: one half calibrates, the other is compared")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Calibrate on every other shipped text, and compare the vectors of the rest with float32, each text alone."""
    lines = SHIPPED.read_text("utf-8").splitlines()
    lines = lines[:: max(1, len(lines) // options.texts)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint, calibration = make_outliers(folder / "checkpoint", options.seed), folder / "calibration.jsonl"
        calibration.write_text("\n".join(lines[::2]), "utf-8")
        export(
            ExportSettings(
                checkpoint=checkpoint,
                output=folder / "pack",
                calibrate=calibration,
                allow_loss=LARGEST_LOSS,
                reference="fp32 graph",
                seed=options.seed,
            )
        )
        graphs = {name: folder / "pack" / f"default-{name}.onnx" for name in ("fp32", "int8")}
        graphs["dynamic"] = dynamic_int8(graphs["fp32"], folder / "dynamic.onnx")
        rows = token_ids(folder / "pack", lines[1::2])
        vectors = {name: vectors_of(graph, rows) for name, graph in graphs.items()}
        sites = activation_outliers.run(argparse.Namespace(decoder=checkpoint))["sites"]
    largest = sorted(sites.items(), key=lambda entry: -max(entry[1].values()))[:MAX_SITES]
    return {
        "layers": LAYERS,
        "hidden": HIDDEN,
        "planted": {"channels": LARGE.stop - LARGE.start, "factor": FACTOR, "massive": MASSIVE},
        "largest_inputs": dict(largest),
        "variants": {
            name: asdict(summarise_cosines(row_cosines(vectors[name], vectors["fp32"]))) for name in ("int8", "dynamic")
        },
    }


def token_ids(folder: Path, lines: Sequence[str]) -> list[Ids]:
    """Token ids of texts under the default prompt, int64 [tokens] each."""
    pack = read_pack(folder)
    (task,) = pack.manifest.tasks.values()
    processor = open_processor(pack)
    texts = [msgspec.json.decode(line)["text"] for line in lines]
    return [item.ids for item in processor.process(processor.items(texts), task.prompt(None).prefix)]


def vectors_of(graph: Path, rows: Sequence[Ids]) -> Float32:
    """Vectors of texts that are computed one at a time, float32 [texts, dimensions]."""
    session = GraphSession(graph, 1)
    return np.concatenate([session.run([SENTENCE_EMBEDDING], pad([row], 0))[0] for row in rows])


def table(results: Mapping[str, Any]) -> str:
    """Format the cosines and the largest inputs."""
    names = {"int8": "embedpack int8", "dynamic": "onnxruntime dynamic int8, per tensor"}
    rows = [
        (names[name], f"{figures['mean']:.5f}", f"{figures['p1']:.5f}", f"{figures['min']:.5f}")
        for name, figures in results["variants"].items()
    ]
    inputs = [
        (site, f"{sizes['first']:.0f}", f"{sizes['others']:.0f}") for site, sizes in results["largest_inputs"].items()
    ]
    count = results["variants"]["int8"]["count"]
    return (
        f"{results['layers']} layers of {results['hidden']} channels, {count} texts, cosines with float32\n\n"
        f"{text_table(('weights', 'mean cosine', '1 % quantile', 'lowest'), rows)}\n\n"
        f"{text_table(('input of linear layers', 'first token', 'others'), inputs)}"
    )
