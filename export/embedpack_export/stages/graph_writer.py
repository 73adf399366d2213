"""Writers of graphs, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from embedpack.engine.session import GraphSession
from embedpack.host.cores import available_cores
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import (
    Branches,
    GraphContext,
    LinearFormat,
    StagedModel,
    WrittenActivations,
    declare,
)
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.staged_run import Feeds


@dataclass(frozen=True)
class WrittenStage:
    """A stage, or its first part, as a runnable graph."""

    session: GraphSession
    inputs: frozenset[str]
    before: str | None  # name of the hidden states that it reads; None for the first stage
    count: int

    def run(self, feeds: Feeds, hidden: Float32 | None) -> list[Float32]:
        """Outputs of the stage; feeds that are no inputs of it are left out."""
        inputs = {name: value for name, value in feeds.items() if name in self.inputs}
        if self.before is not None and hidden is not None:
            inputs[self.before] = hidden
        return self.session.run([str(index) for index in range(self.count)], inputs)


class GraphWriter:
    """Writer of one graph, stage by stage; the weights of a stage go to the store at once."""

    def __init__(
        self,
        name: str,
        store: WeightStore,
        model: StagedModel,
        weights: Weights,
        linears: LinearFormat,
        branches: Branches | None = None,
    ) -> None:
        graph = GraphBuilder(name, store)
        self._folder = store.folder
        self._before: ir.Value | None = None
        self._model = model
        self._statistics: dict[str, SiteStatistics] = {}
        self._hidden: ir.Value | None = None
        self.context = GraphContext(graph, declare(graph, model.inputs), weights, linears, self._statistics, branches)

    def append(
        self, index: int, statistics: Mapping[str, SiteStatistics], written: WrittenActivations | None = None
    ) -> None:
        """Append a stage, quantized with these statistics.

        Raises:
            CheckpointError: a tensor is missing or does not fit.
        """
        self._statistics.update(statistics)
        self._before = self._hidden
        self._hidden = self._model.stages[index](replace(self.context, written=written), self._before)
        self._statistics.clear()

    def last_stage(self) -> AbstractContextManager[WrittenStage]:
        """Open the last stage as a graph of its own."""
        assert self._hidden is not None
        return self.up_to([self._hidden])

    @contextmanager
    def up_to(self, values: Sequence[ir.Value]) -> Iterator[WrittenStage]:
        """Open the last stage, or the part of it that is written, with `values` as the outputs."""
        model = self.context.graph.part(self._before, values)
        path = self._folder / ".stage.onnx"
        try:
            ir.save(model, path)
            session = GraphSession(path, available_cores(), mapped=True)
            inputs = frozenset(str(item.name) for item in model.graph.inputs)
            before = None if self._before is None else str(self._before.name)
            yield WrittenStage(session, inputs, before, len(values))
        finally:
            path.unlink(missing_ok=True)

    def finish(self, heads: Callable[[GraphContext, ir.Value], None], path: Path) -> None:
        """Append the heads and write the graph."""
        assert self._hidden is not None
        heads(self.context, self._hidden)
        ir.save(self.context.graph.build(), path)
