"""What was written runs at once, stage by stage: how good a variant is shows without ever loading it as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from embedpack.pack.manifest import WeightsFormat
from embedpack_export.arrays import Float32
from embedpack_export.graph.lora_branches import AdapterBranches
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.sources.peft_adapter import PeftAdapter
from embedpack_export.sources.weights import NameRules
from embedpack_export.stages.exact_run import Feeds, real_tokens
from embedpack_export.stages.graph_writer import GraphWriter, WrittenStage


@dataclass
class StageAdapter:
    """The adapter of a task as inputs of a switchable graph, stage by stage."""

    branches: AdapterBranches
    adapter: PeftAdapter
    rules: NameRules
    _given: int = 0

    def next_tensors(self) -> Feeds:
        """Its tensors for the branches that were added since the last stage was done."""
        return dict(self.branches.tensors(self.adapter, self.rules, self._given))

    def stage_done(self) -> None:
        """From now on branches are those of the next stage."""
        self._given = self.branches.count


@dataclass
class Trial:
    """Inputs on their way through the stages that were written.

    Attributes:
        feeds: inputs of the model, batch by batch.
        adapter: of the task, where the graph takes it as an input.
        hidden: what the stage before handed over for each batch; empty before the first.
    """

    feeds: Sequence[Feeds]
    adapter: StageAdapter | None = None
    hidden: list[Float32] = field(default_factory=list)

    def run(self, stage: WrittenStage, batches: int) -> Iterator[tuple[Feeds, list[Float32]]]:
        """The inputs of the first batches, and what a stage returns for each."""
        tensors = {} if self.adapter is None else self.adapter.next_tensors()
        before: Sequence[Float32 | None] = self.hidden or [None] * len(self.feeds)
        for feeds, hidden in zip(self.feeds[:batches], before[:batches], strict=True):
            yield feeds, stage.run(feeds | tensors, hidden)

    def advance(self, stage: WrittenStage) -> None:
        """Run a whole stage."""
        self.hidden = [hidden for _, (hidden,) in self.run(stage, len(self.feeds))]
        if self.adapter is not None:
            self.adapter.stage_done()


@dataclass(frozen=True)
class Writing:
    """Graphs that are being written, one for each weights format, with the trials of each."""

    writers: Mapping[WeightsFormat, GraphWriter]
    trials: Mapping[WeightsFormat, Sequence[Trial]]

    def append(self, index: int, statistics: Mapping[str, SiteStatistics]) -> None:
        """Write a stage in every format and run it."""
        for name, writer in self.writers.items():
            trials = self.trials[name]
            writer.append(index, statistics, _Arrivals(writer, trials))
            with writer.last_stage() as stage:
                for trial in trials:
                    trial.advance(stage)


@dataclass(frozen=True)
class _Arrivals:
    """See `Arrivals`."""

    writer: GraphWriter
    trials: Sequence[Trial]

    def __call__(self, values: Sequence[ir.Value], batches: Sequence[int], /) -> Iterator[list[Float32]]:
        with self.writer.up_to(values) as stage:
            for trial, count in zip(self.trials, batches, strict=True):
                for feeds, found in trial.run(stage, count):
                    yield [real_tokens(feeds, value).values for value in found]
