"""The calibration pass: an fp32 graph of the merged weights, run over the calibration texts and watched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.codes import Float32
from embedpack.progress import Progress
from embedpack.session import GraphSession
from embedpack.threads import available_cores
from embedpack_export.build import calibration_groups, write_graph
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.fp32 import ObservedFp32
from embedpack_export.graph.target import Target
from embedpack_export.plan import ExportPlan, TaskPlan
from embedpack_export.statistics import SiteStatistics, StatisticsSum
from embedpack_export.weight_store import WeightStore
from embedpack_export.weights import Weights

# Tokens of a batch: the covariances, some megabytes each, are touched once a batch.
TOKEN_BUDGET = 2048


@dataclass(frozen=True)
class Calibrated:
    """What the calibration pass saw.

    Attributes:
        vectors: vectors of the calibration texts, float32 [texts, dimensions].
        sites: statistics of the activations that linear layers read, by site.
        matrices: how many a graph of the model has.
    """

    vectors: Float32
    sites: Mapping[str, SiteStatistics]
    matrices: int


@contextmanager
def calibrate(plan: ExportPlan, task: TaskPlan, weights: Weights, scratch_parent: Path) -> Iterator[Calibrated]:
    """Build the fp32 graph of a task in a scratch folder and run the calibration texts through it.

    The covariances are files of that folder, so they are there inside the block only.

    Args:
        plan: the export.
        task: the task.
        weights: its merged weights.
        scratch_parent: folder on a disk with room for one fp32 copy of the model.
    """
    with tempfile.TemporaryDirectory(prefix=".calibration.", dir=scratch_parent) as scratch:
        path = Path(scratch) / "observed.onnx"
        observed = ObservedFp32()
        graph = GraphBuilder("observed", WeightStore(Path(scratch)))
        matrices: list[str] = []
        target = Target(graph, weights, observed, statistics={}, report=lambda matrix, _: matrices.append(matrix))
        write_graph(plan, target, 1.0, path)
        vectors, statistics = _observe(plan, task, path, observed.sites)
        yield Calibrated(vectors, statistics, len(matrices))


def _observe(
    plan: ExportPlan, task: TaskPlan, graph: Path, sites: Mapping[str, int]
) -> tuple[Float32, dict[str, SiteStatistics]]:
    session = GraphSession(graph, available_cores())
    encoder = plan.encoder(session)
    sums = {
        site: StatisticsSum(size, np.memmap(graph.with_name(f"{site}.bin"), np.float64, "w+", shape=(size, size)))
        for site, size in sites.items()
    }
    vectors = []
    with Progress("calibrating", len(plan.calibration.texts)) as progress:
        for prompt, texts in calibration_groups(plan, task):
            found = np.empty((len(texts), plan.model.dimensions), np.float32)
            for rows, feeds in encoder.batches(texts, prompt=prompt, token_budget=TOKEN_BUDGET):
                real = feeds["attention_mask"].astype(bool)
                found[rows], *activations = session.run(["sentence_embedding", *sites], feeds)
                for site, values in zip(sites, activations, strict=True):
                    sums[site].add(values[real].astype(np.float32))
                progress.advance(len(rows))
            vectors.append(found)
    return np.concatenate(vectors), {site: collected.result() for site, collected in sums.items()}
