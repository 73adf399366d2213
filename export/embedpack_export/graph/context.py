"""What a family builds into, and the small vocabulary that it shares with the weights formats."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.pack.graph_io import GraphInput
from embedpack_export.arrays import Float32, Matrix
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.sources.weights import Weights

logger = logging.getLogger("embedpack")

# Both forms of GELU stay above this.
GELU_MINIMUM = -0.1701


@dataclass(frozen=True)
class Activation:
    """What linear layers read, float32 [..., channels].

    Attributes:
        site: its name in the statistics of a calibration.
        make: appends what makes it and returns it; called once, and only if something needs the plain value.
        rescale: gives (x - shift) / scale where what made x can do that itself; takes shift and scale [channels] and
            the group that its weights go to.
        layout: how the channels of the value were made; None: as they are.
        lower_bound: no value is below it.
    """

    site: str
    make: Callable[[], ir.Value]
    rescale: Callable[[Float32, Float32, str], ir.Value] | None = None
    layout: ChannelLayout | None = None
    lower_bound: float | None = None
    _made: list[ir.Value] = field(default_factory=list)

    @classmethod
    def of(cls, site: str, value: ir.Value) -> Activation:
        """A value that is there already."""
        return cls(site, lambda: value)

    @property
    def value(self) -> ir.Value:
        """The values."""
        if not self._made:
            self._made.append(self.make())
        return self._made[0]


@dataclass(frozen=True)
class LinearLayer:
    """One linear layer y = ((x @ weight.T + bias) / divisor)[order]; weight [out, in], the others [out].

    `residual` is what the result is added to, where nothing is done to it before.
    """

    weight: Matrix
    bias: Float32 | None
    divisor: Float32 | None = None
    order: npt.NDArray[np.intp] | None = None
    residual: Activation | None = None

    @property
    def module(self) -> str:
        """Name of the layer."""
        return self.weight.name.removesuffix(".weight")

    @property
    def bias_name(self) -> str:
        """Name of its bias."""
        return f"{self.module}.bias"


class LinearFormat(Protocol):
    """How linears and embedding tables are written in one weights format."""

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """Several layers that read the same activation, one result each."""
        ...

    def channel_layout(
        self, context: GraphContext, site: str, layers: Sequence[LinearLayer], groups: ChannelGroups | None
    ) -> ChannelLayout | None:
        """See `GraphContext.channel_layout`."""
        ...

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """Rows of an embedding table [vocabulary, hidden] for token ids."""
        ...


class Branches(Protocol):
    """What is computed beside linear layers: adapters that are inputs of the graph."""

    def add(self, context: GraphContext, x: Activation, layer: LinearLayer, product: ir.Value) -> ir.Value:
        """The result of a layer plus that of its branch."""
        ...


class WrittenActivations(Protocol):
    """Activations of the calibration inputs in the part of a stage that is already written."""

    def __call__(self, values: Sequence[ir.Value], batches: Sequence[int], /) -> Iterator[list[Float32]]:
        """Compute values of the graph, batch by batch.

        Args:
            values: values of the graph.
            batches: number of batches of each run, from its first.

        Yields:
            For each batch the tokens of each value without padding, float32 [n, channels].
        """
        ...


@dataclass(frozen=True)
class GraphContext:
    """The graph under construction.

    Attributes:
        graph: takes nodes and weights.
        inputs: of the graph, by name.
        weights: the merged weights of the task.
        format: how matrices are written.
        statistics: what calibration saw at each site; empty where the format needs none.
        branches: computed beside the linear layers; None where the adapter is merged.
        written: activations of the stage that is being written; None: it is not run.
    """

    graph: GraphBuilder
    inputs: Mapping[str, ir.Value]
    weights: Weights
    format: LinearFormat
    statistics: Mapping[str, SiteStatistics]
    branches: Branches | None = None
    written: WrittenActivations | None = None
    _shared: dict[str, ir.Value] = field(default_factory=dict)

    def linears(self, x: Activation, *layers: LinearLayer) -> list[ir.Value]:
        """Linear layers that read the same activation."""
        products = self.format.linears(self, x, layers)
        if self.branches is None:
            return products
        return [self.branches.add(self, x, layer, product) for layer, product in zip(layers, products, strict=True)]

    def channel_layout(
        self, site: str, *layers: LinearLayer, groups: ChannelGroups | None = None
    ) -> ChannelLayout | None:
        """How the channels of a site are to be made, so that they quantize well; None: as they are.

        Args:
            site: the site.
            layers: all that read it.
            groups: (groups, members, size) of the channels where the members of a group must share their divisors, as
                the query heads that read one value head do; such channels keep their order. None: each is on its own.
        """
        return self.format.channel_layout(self, site, layers, groups)

    def table(self, table: Matrix, ids: ir.Value) -> ir.Value:
        """Rows of an embedding table."""
        return self.format.table(self, table, ids)

    def report(self, matrix: str, relative: float) -> None:
        """Log the relative rounding error of a matrix."""
        logger.debug("%s: relative rounding error %.2e", matrix, relative)

    def once(self, name: str, make: Callable[[], ir.Value]) -> ir.Value:
        """A value that several stages need and one of them makes: masks, rotary tables."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]


# Appends a stage: takes what the stage before it returned (None: it is the first), returns hidden states.
Stage: TypeAlias = Callable[[GraphContext, ir.Value | None], ir.Value]


@dataclass(frozen=True)
class StagedModel:
    """A model in pieces that run one after the other: an export holds the weights of one piece at a time.

    Attributes:
        inputs: all inputs, which every stage may read.
        hidden: shape of what is handed from stage to stage, float32.
        stages: the pieces.
    """

    inputs: tuple[GraphInput, ...]
    hidden: tuple[int | str, ...]
    stages: tuple[Stage, ...]


def declare(graph: GraphBuilder, specs: Sequence[GraphInput]) -> dict[str, ir.Value]:
    """Declare inputs of a graph; returns them by name."""
    return {
        spec.name: graph.input(spec.name, ir.DataType.from_numpy(np.dtype(spec.dtype)), spec.shape) for spec in specs
    }


def add_bias(g: GraphBuilder, product: ir.Value, name: str, bias: Float32 | None, group: str = "shared") -> ir.Value:
    """`product + bias`; the product itself where there is none."""
    return product if bias is None else g.op("Add", [product, g.vector(name, bias, group)])
