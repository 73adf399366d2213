"""Graphs of one model, written stage by stage in every weights format, without their heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedpack.pack.strict import WeightsFormat
from embedpack.progress import Progress
from embedpack_export.assembly.pack_builder import PackBuilder
from embedpack_export.graph.context import LinearFormat, StagedModel
from embedpack_export.graph.lora_branches import AdapterBranches
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, run_exact_stage
from embedpack_export.stages.graph_writer import GraphWriter
from embedpack_export.stages.written_run import FormatWriters, WrittenRun


@dataclass(frozen=True)
class GraphSource:
    """A model whose graphs are written."""

    name: str  # first part of the names of the graphs
    model: StagedModel
    weights: Weights
    formats: Mapping[WeightsFormat, LinearFormat]
    # Adapter branches of the graph of each weights format; empty: the adapter is merged, or there is none.
    branches: Mapping[WeightsFormat, AdapterBranches] = field(default_factory=dict)


def write_stages(
    source: GraphSource,
    exact: Sequence[ExactRun],
    written: Mapping[WeightsFormat, Sequence[WrittenRun]],
    pack: PackBuilder,
) -> dict[WeightsFormat, GraphWriter]:
    """Run each stage in float32, write it in every format with the statistics of that run, and run what was written.

    Returns the writers of the graphs, which their heads complete.
    """
    writers = {
        kind: GraphWriter(
            f"{source.name}-{kind}",
            pack.store,
            source.model,
            source.weights,
            source.formats[kind],
            source.branches.get(kind),
        )
        for kind in pack.weights
    }
    writing = FormatWriters(writers, written, pack.scratch)
    with Progress(f"writing {source.name}", len(source.model.stages)) as progress:
        for index in range(len(source.model.stages)):
            writing.append(index, run_exact_stage(source.model, index, exact, pack.scratch))
            progress.advance(1)
    return writers
