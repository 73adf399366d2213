"""Run of each stage right after it is written: a variant is measured without loading the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import onnx_ir as ir

from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.lora_branches import AdapterBranches
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.stages.calibration_run import real_tokens
from embedpack_export.stages.graph_writer import GraphWriter, WrittenStage
from embedpack_export.stages.staged_run import Feeds, HiddenFile, StagedRun


@dataclass
class AdapterFeeds:
    """The adapter of a task as inputs of a switchable graph, stage by stage."""

    branches: AdapterBranches
    adapter: Adapter
    rules: NameRules  # names of the adapter's modules
    # Number of branches in the stages before.
    _done: int = 0

    def next_tensors(self) -> Feeds:
        """Tensors for the branches of the current stage."""
        return dict(self.branches.tensors(self.adapter, self.rules, self._done))

    def stage_done(self) -> None:
        """Begin the next stage."""
        self._done = self.branches.count


@dataclass
class WrittenRun(StagedRun):
    """Calibration inputs that pass through the written stages of one weights format."""

    adapter: AdapterFeeds | None = None  # adapter of the task if it is an input of the graph

    def run(self, stage: WrittenStage, batches: int) -> Iterator[tuple[Feeds, list[Float32]]]:
        """Run a stage, or a part of it; yield inputs and outputs of each of the first `batches`."""
        tensors = {} if self.adapter is None else self.adapter.next_tensors()
        for feeds, hidden in islice(self.batches(), batches):
            yield feeds, stage.run(feeds | tensors, hidden)

    def advance(self, stage: WrittenStage, scratch: Path) -> None:
        """Run a whole stage and keep its hidden states in a file in `scratch`."""
        after = HiddenFile(scratch)
        for _, (hidden,) in self.run(stage, len(self.feeds)):
            after.append(hidden)
        self.replace_states(after)
        if self.adapter is not None:
            self.adapter.stage_done()


@dataclass(frozen=True)
class FormatWriters:
    """Writer of each weights format, and the runs of all tasks through its graph."""

    writers: Mapping[WeightsFormat, GraphWriter]
    runs: Mapping[WeightsFormat, Sequence[WrittenRun]]
    scratch: Path  # folder for hidden states

    def append(self, index: int, statistics: Mapping[str, SiteStatistics]) -> None:
        """Write a stage in every format and run it there."""
        for name, writer in self.writers.items():
            runs = self.runs[name]
            writer.append(index, statistics, _WrittenActivations(writer, runs))
            with writer.last_stage() as stage:
                for run in runs:
                    run.advance(stage, self.scratch)


@dataclass(frozen=True)
class _WrittenActivations:
    """See `WrittenActivations`."""

    writer: GraphWriter
    runs: Sequence[WrittenRun]

    def __call__(self, values: Sequence[ir.Value], batches: Sequence[int], /) -> Iterator[list[Float32]]:
        with self.writer.up_to(values) as stage:
            for run, count in zip(self.runs, batches, strict=True):
                for batch, (feeds, outputs) in enumerate(run.run(stage, count)):
                    yield [real_tokens(feeds, value, run.lengths_of(batch)).values for value in outputs]
