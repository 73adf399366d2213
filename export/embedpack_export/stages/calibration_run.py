"""The calibration pass: a model in float32, stage by stage, with statistics of the inputs of its linear layers.

Only the weights of one stage exist at a time, in a scratch folder, with the hidden states of all inputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.engine.session import GraphSession
from embedpack.host.cores import available_cores
from embedpack.pack.graph_io import ATTENTION_MASK, PATCHES
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import GraphContext, StagedModel, declare
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.fp32 import ObservedFp32
from embedpack_export.quantization.activation_file import ActivationFile, TokenActivations
from embedpack_export.quantization.statistics import SiteStatistics, StatisticsSum
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.staged_run import Feeds, HiddenFile, StagedRun


@dataclass
class ExactRun(StagedRun):
    """Calibration inputs that pass through a model in float32 with the weights of one task."""

    weights: Weights
    observed: int  # number of batches, from the first, that are part of the statistics


def run_exact_stage(
    model: StagedModel, index: int, runs: Sequence[ExactRun], scratch: Path
) -> dict[str, SiteStatistics]:
    """Run the next stage for all tasks and collect statistics of its activations, by site.

    Stages must be run in order; the hidden states of the runs are updated. The weights of a stage in float32 and the
    inputs of its linear layers go into `scratch`. The activation files are valid until the next stage is run.
    """
    sums: dict[str, StatisticsSum] = {}
    files: dict[str, ActivationFile] = {}
    tokens = sum(_count(run, batch) for run in runs for batch in range(run.observed))
    for number, run in enumerate(runs):
        for batch, site, values in record_stage(model, index, run, scratch):
            if site not in sums:
                sums[site] = StatisticsSum(values.shape[-1], tokens)
                files[site] = ActivationFile(scratch / f"site.{len(sums)}", values.shape[-1])
            activations = real_tokens(run.feeds[batch], values, run.lengths_of(batch))
            sums[site].add(activations.values)
            texts = values.ndim == 3 and ATTENTION_MASK in run.feeds[batch]
            if texts and model.causal:
                sums[site].add_first(values[:, 0])
            elif texts:
                lengths = run.lengths_of(batch)
                if lengths is None:
                    lengths = run.feeds[batch][ATTENTION_MASK].sum(axis=1)
                sums[site].add_texts(values.astype(np.float32, copy=False), lengths)
            files[site].add(number, activations)
    return {site: replace(total.result(), activations=files[site]) for site, total in sums.items()}


def record_stage(
    model: StagedModel, index: int, run: ExactRun, scratch: Path
) -> Iterator[tuple[int, str, npt.NDArray[Any]]]:
    """Run the next stage; the hidden states of the run are updated at the end.

    Yields:
        For each observed batch and site the number of the batch, the name of the site and its values [..., channels].
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        graph, sites = _write_stage(model, index, run.weights, Path(folder))
        session = GraphSession(graph, available_cores(), mapped=True)
        after = HiddenFile(scratch)
        for position, (feeds, before) in enumerate(run.batches()):
            inputs = feeds | ({} if before is None else {"hidden": before})
            observed = position < run.observed
            hidden, *activations = session.run(["next", *sites] if observed else ["next"], inputs)
            after.append(hidden)
            for site, values in zip(sites, activations, strict=observed):
                yield position, site, values
        run.replace_states(after)


@contextmanager
def open_heads(
    model: StagedModel, heads: Callable[[GraphContext, ir.Value], None], weights: Weights, scratch: Path
) -> Iterator[GraphSession]:
    """Open the heads as a graph of their own, with the last hidden states as the input `hidden`."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        graph = GraphBuilder("heads", WeightStore(Path(folder)))
        context = GraphContext(graph, declare(graph, model.inputs), weights, ObservedFp32(), statistics={})
        heads(context, graph.input("hidden", ir.DataType.FLOAT, model.hidden))
        path = Path(folder) / "heads.onnx"
        ir.save(graph.build(), path)
        yield GraphSession(path, available_cores(), mapped=True)


def _write_stage(model: StagedModel, index: int, weights: Weights, folder: Path) -> tuple[Path, list[str]]:
    """Write the graph of one stage with its sites as outputs; returns its path and the names of the sites."""
    observed = ObservedFp32()
    graph = GraphBuilder("stage", WeightStore(folder))
    inputs = declare(graph, model.inputs)
    hidden = graph.input("hidden", ir.DataType.FLOAT, model.hidden) if index else None
    context = GraphContext(graph, inputs, weights, observed, statistics={})
    result = model.stages[index](context, hidden)
    graph.output(graph.op("Identity", [result]), "next", ir.DataType.FLOAT, [f"next.{axis}" for axis in model.hidden])
    path = folder / "stage.onnx"
    ir.save(graph.build(), path)
    return path, observed.sites


def _count(run: ExactRun, batch: int) -> int:
    """Number of real tokens of a batch; of an image, number of patches."""
    lengths, feeds = run.lengths_of(batch), run.feeds[batch]
    if lengths is not None:
        return int(lengths.sum())
    return int(feeds[ATTENTION_MASK].sum()) if ATTENTION_MASK in feeds else len(feeds[PATCHES])


def real_tokens(
    feeds: Feeds, values: npt.NDArray[Any], lengths: npt.NDArray[np.int64] | None = None
) -> TokenActivations:
    """Activations [..., channels] of the tokens that are no padding: the first of each text, or those attended to."""
    if ATTENTION_MASK in feeds and values.ndim == 3:
        mask = feeds[ATTENTION_MASK].astype(bool)
        if lengths is not None:
            mask = np.arange(mask.shape[1]) < lengths[:, None]
        lengths = np.broadcast_to(mask.sum(axis=1, keepdims=True), mask.shape)[mask]
        return TokenActivations(values[mask].astype(np.float32), (1 / lengths[:, None]).astype(np.float32))
    rows = values.reshape(-1, values.shape[-1]).astype(np.float32)
    return TokenActivations(rows, np.full((len(rows), 1), 1 / len(rows), np.float32))
