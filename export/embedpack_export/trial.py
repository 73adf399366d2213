"""What was written runs at once, stage by stage: how good a variant is shows without ever loading it as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedpack.pack import WeightsFormat
from embedpack_export.adapter import PeftAdapter
from embedpack_export.build import GraphWriter
from embedpack_export.graph.branches import AdapterBranches
from embedpack_export.lora import Float32
from embedpack_export.observe import Feeds
from embedpack_export.statistics import SiteStatistics
from embedpack_export.weights import NameRules


@dataclass
class StageAdapter:
    """The adapter of a task as inputs of a switchable graph, stage by stage."""

    branches: AdapterBranches
    adapter: PeftAdapter
    rules: NameRules
    _given: int = 0

    def next_tensors(self) -> Feeds:
        """Its tensors for the branches that were added since the last call."""
        tensors = self.branches.tensors(self.adapter, self.rules, self._given)
        self._given = self.branches.count
        return dict(tensors)


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


@dataclass(frozen=True)
class Writing:
    """Graphs that are being written, one for each weights format, with the trials of each."""

    writers: Mapping[WeightsFormat, GraphWriter]
    trials: Mapping[WeightsFormat, Sequence[Trial]]

    def append(self, index: int, statistics: Mapping[str, SiteStatistics]) -> None:
        """Write a stage in every format and run it."""
        for name, writer in self.writers.items():
            writer.append(index, statistics)
            with writer.last_stage() as stage:
                for trial in self.trials[name]:
                    tensors = {} if trial.adapter is None else trial.adapter.next_tensors()
                    before: Sequence[Float32 | None] = trial.hidden or [None] * len(trial.feeds)
                    pairs = zip(trial.feeds, before, strict=True)
                    trial.hidden = [stage.run(feeds | tensors, hidden) for feeds, hidden in pairs]
