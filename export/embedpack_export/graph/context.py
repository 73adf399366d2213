"""The graph under construction, and the classes that families and weights formats share to write linear layers."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.pack.graph_io import GraphInput, lora_inputs
from embedpack.pack.variants import Device
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.smoothing import SmoothingChoice
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.token_rows import TokenRows
from embedpack_export.sources.weights import EmbeddingTable, Weights

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]

logger = logging.getLogger("embedpack")

# All channels as one part.
WHOLE = (slice(None),)
# Lower bound of both forms of GELU.
GELU_MINIMUM = -0.1701


@dataclass(frozen=True)
class Rescaled:
    """A value whose channels are shifted and divided: (x - shift) / divisors, shift and divisors float32 [channels]."""

    value: ir.Value
    shift: Float32
    divisors: Float32


class Activation:
    """Input of linear layers, float32 [..., channels].

    Attributes:
        site: name of the activation in the calibration statistics.
        parts: successive parts of the channels, if the value exists in parts alone; `value` joins them.
        rescale: appends the nodes that compute (x - shift) / scale directly, or None if no norm is before; takes shift
            and scale [channels] and the weights group.
        layout: layout that the channels of the value already have; None: that of the model.
        lower_bound: lower bound of all values, if there is one.
        smoothing: how the channels of the value are already shifted and divided; None: they are not.
        rescaled: what `rescale` appended, set by a format that reads it in place of the value.
        branch_input: what branches read, set by a format that quantizes the activation; None: the value.
    """

    def __init__(
        self,
        site: str,
        make: Callable[[], ir.Value],
        rescale: Callable[[Float32, Float32, str], ir.Value] | None = None,
        layout: ChannelLayout | None = None,
        lower_bound: float | None = None,
    ) -> None:
        """`make` appends the nodes of the plain value; it is called at most once, when the value is first read."""
        self.site = site
        self.parts: Sequence[ir.Value] = ()
        self.rescale = rescale
        self.layout = layout
        self.lower_bound = lower_bound
        self.smoothing: SmoothingChoice | None = None
        self.rescaled: Rescaled | None = None
        self.branch_input: BranchInput | None = None
        self._make = make

    @classmethod
    def of(cls, site: str, value: ir.Value) -> Activation:
        """An existing value."""
        return cls(site, lambda: value)

    @classmethod
    def of_parts(
        cls,
        g: GraphBuilder,
        site: str,
        parts: Sequence[ir.Value],
        layout: ChannelLayout | None = None,
        lower_bound: float | None = None,
    ) -> Activation:
        """Successive parts of the channels, in the order of the layout; one part is the whole value."""
        if len(parts) == 1:
            return cls(site, lambda: parts[0], layout=layout, lower_bound=lower_bound)
        joined = cls(site, lambda: g.op("Concat", parts, {"axis": -1}), layout=layout, lower_bound=lower_bound)
        joined.parts = parts
        return joined

    @classmethod
    def smoothed(cls, site: str, value: ir.Value, smoothing: SmoothingChoice | None) -> Activation:
        """A value whose channels are shifted and divided, unless `smoothing` is None."""
        activation = cls.of(site, value)
        activation.smoothing = smoothing
        return activation

    def unshifted(self, g: GraphBuilder) -> ir.Value:
        """Append the plain value less the shift of `rescaled`: one pass where another norm would take several."""
        if self.rescaled is None:
            return self.value
        return g.op("Mul", [self.rescaled.value, g.vector(f"{self.site}.divisors", self.rescaled.divisors, "int8")])

    @property
    def values(self) -> Sequence[ir.Value]:
        """The parts, or the plain value if there are none."""
        return self.parts or [self.value]

    @cached_property
    def value(self) -> ir.Value:
        """The plain value."""
        return self._make()


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer y = ((x @ weight.T + bias) / divisor)[order]."""

    weight: Matrix  # weight [out, in]
    bias: Float32 | None  # bias [out], if there is one
    divisor: Float32 | None = None  # divisor of each output [out]; None: 1
    order: npt.NDArray[np.intp] | None = None  # order of the outputs [out]; None: that of the weight's rows
    # The activation that the output of the layer is added to, if nothing is applied in between.
    residual: Activation | None = None
    # Parts of the outputs, in this order, each of which is a value of its own.
    parts: tuple[slice, ...] = WHOLE

    @property
    def module(self) -> str:
        """Module name of the layer."""
        return self.weight.name.removesuffix(".weight")

    def smoothed(self, smoothing: SmoothingChoice | None) -> LinearLayer:
        """The layer with shifted and divided outputs."""
        if smoothing is None:
            return self
        bias = -smoothing.shift if self.bias is None else self.bias - smoothing.shift
        return replace(self, bias=bias, divisor=smoothing.layout.divisors)

    @property
    def bias_name(self) -> str:
        """Tensor name of the bias."""
        return f"{self.module}.bias"


class LinearFormat(ABC):
    """Writer of linear layers and embedding tables in one weights format.

    Attributes:
        in_parts: true if inputs and outputs of layers can be in parts.
        device: device that its graphs are for; on GPUs, GroupQueryAttention takes float16.
    """

    in_parts: ClassVar[bool] = True
    device: ClassVar[Device] = "cpu"

    @abstractmethod
    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """Append layers that read the same activation; returns the parts of the output of each."""

    def smoothing(
        self,
        context: GraphContext,
        site: str,
        layers: Sequence[LinearLayer],
        *,
        shifts: bool = False,
        groups: ChannelGroups | None = None,
    ) -> SmoothingChoice | None:
        """See `GraphContext.smoothing`; None for a format that does not quantize activations in the graph."""
        return None

    @abstractmethod
    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """Append the lookup of token ids in an embedding table [vocabulary, hidden]."""


class BranchInput(Protocol):
    """An activation as branches read it: the input of products with factors A, which are inputs of the graph."""

    def narrow(self, g: GraphBuilder, module: str) -> ir.Value:
        """Append the product with the factor A of a module, and declare its inputs; float32 [..., rank]."""
        ...

    def factor(self, module: str, down: Float32) -> dict[str, Array]:
        """Values of these inputs for a factor A, float32 [rank, channels of the model]."""
        ...


class Branches(Protocol):
    """Branches of linear layers and embedding tables: adapters that are inputs of the graph."""

    def add(self, context: GraphContext, x: Activation, layer: LinearLayer, products: list[ir.Value]) -> list[ir.Value]:
        """Add the output of a layer's branch, if it has one, to the parts of the layer's output, `products`."""
        ...

    def add_rows(self, context: GraphContext, table: Matrix, index: Callable[[], ir.Value], rows: ir.Value) -> ir.Value:
        """Add the branch of an embedding table, if it has one, to `rows` of it; `index` appends their indices."""
        ...


class WrittenActivations(Protocol):
    """Activations of the calibration inputs in the part of a stage that is already written."""

    def __call__(self, values: Sequence[ir.Value], batches: Sequence[int], /) -> Iterator[list[Float32]]:
        """For each of the first `batches` of every run the tokens per value without padding, float32 [n, channels]."""
        ...


@dataclass
class GraphContext:
    """The graph under construction."""

    graph: GraphBuilder  # builder of nodes and weights
    inputs: Mapping[str, ir.Value]
    weights: Weights  # weights of the task, merged with its adapter
    format: LinearFormat  # weights format of the matrices
    statistics: Mapping[str, SiteStatistics]  # calibration statistics by site; empty if the format needs none
    branches: Branches | None = None  # branches of the linear layers; None if the adapter is merged
    # Activations of the stage that is being written, which `GraphWriter.append` sets; None: it is not run.
    written: WrittenActivations | None = None
    shared: dict[str, object] = field(default_factory=dict)  # values that several stages use (`once`), by name

    def linears(self, x: Activation, *layers: LinearLayer) -> list[ir.Value]:
        """Append linear layers that read the same activation, with their branches; each output is one part."""
        return [product for (product,) in self.linear_parts(x, *layers)]

    def sum_with(self, residual: Activation, x: Activation, layer: LinearLayer) -> ir.Value:
        """Append a layer that reads x, after all other layers that read the residual, and the sum of both."""
        bias = layer.bias
        if residual.rescaled is not None:
            bias = residual.rescaled.shift if bias is None else bias + residual.rescaled.shift
        (product,) = self.linears(x, replace(layer, residual=residual, bias=bias))
        return self.graph.op("Add", [product, residual.unshifted(self.graph)])

    def linear_parts(self, x: Activation, *layers: LinearLayer) -> list[list[ir.Value]]:
        """Append linear layers that read the same activation, with their branches; returns the parts of each output."""
        products = self.format.linears(self, x, layers)
        if self.branches is None:
            return products
        return [self.branches.add(self, x, layer, product) for layer, product in zip(layers, products, strict=True)]

    def smoothing(
        self, site: str, *layers: LinearLayer, shifts: bool = False, groups: ChannelGroups | None = None
    ) -> SmoothingChoice | None:
        """Shift, divisors and order for the channels of a site with a small quantization error; None: as in the model.

        `layers` are all that read it; the layer before has to apply the choice. `shifts`: channels can be shifted, and
        keep their order: as those of the values of attention, whose weights sum to 1. `groups` have common divisors;
        None: each channel may have its own.
        """
        return self.format.smoothing(self, site, layers, shifts=shifts, groups=groups)

    def table(self, table: EmbeddingTable, ids: ir.Value) -> ir.Value:
        """Append the lookup of token ids in an embedding table, with its update or its branch."""
        rows = self.format.table(self, table.matrix, ids)
        if table.change is not None:
            rows = self.graph.op("Add", [rows, _table_change(self.graph, table, table.change, ids)])
        return self.add_row_branch(table.matrix, lambda: ids, rows)

    def add_row_branch(self, table: Matrix, index: Callable[[], ir.Value], rows: ir.Value) -> ir.Value:
        """Append the branch of a table to the `rows` that were read from it; `index` appends their indices, int64."""
        return rows if self.branches is None else self.branches.add_rows(self, table, index, rows)

    def log_error(self, matrix: str, relative: float) -> None:
        """Log the relative rounding error of a matrix."""
        logger.debug("%s: relative rounding error %.2e", matrix, relative)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Values that several stages use, e.g. a mask; `make` appends their nodes the first time."""
        if name not in self.shared:
            self.shared[name] = make()
        return cast("T", self.shared[name])


# Appends a stage; takes the hidden states of the stage before it (None for the first) and returns its own.
Stage: TypeAlias = Callable[[GraphContext, ir.Value | None], ir.Value]


@dataclass(frozen=True)
class StagedModel:
    """A model as a sequence of stages, so that an export holds the weights of only one stage at a time."""

    inputs: tuple[GraphInput, ...]  # inputs of the model, which every stage may read
    hidden: tuple[int | str, ...]  # shape of the hidden states between stages, float32
    stages: tuple[Stage, ...]  # the stages, in order
    causal: bool = False  # true if a token attends to itself and earlier tokens alone


def declare(graph: GraphBuilder, specs: Sequence[GraphInput]) -> dict[str, ir.Value]:
    """Declare inputs of a graph and return them by name."""
    return {
        spec.name: graph.input(spec.name, ir.DataType.from_numpy(np.dtype(spec.dtype)), spec.shape) for spec in specs
    }


def _table_change(g: GraphBuilder, table: EmbeddingTable, change: LowRankUpdate | TokenRows, ids: ir.Value) -> ir.Value:
    """Append the change of the rows of an embedding table for token ids; it is float32 in every weights format."""
    factors = change.factors(table.matrix) if isinstance(change, TokenRows) else change.table_factors()
    down, up = (
        g.weight(name, "shared", [factor], np.float32, factor.shape)
        for name, factor in zip(lora_inputs(table.module), factors, strict=True)
    )
    return g.op("MatMul", [g.op("Gather", [down, ids], {"axis": 0}), up])


def add_bias(g: GraphBuilder, product: ir.Value, name: str, bias: Float32 | None, group: str = "shared") -> ir.Value:
    """Append `product + bias`; without a bias, return the product itself."""
    return product if bias is None else g.op("Add", [product, g.vector(name, bias, group)])


def add_all(g: GraphBuilder, terms: Sequence[ir.Value]) -> ir.Value:
    """Append the sum of terms.

    Call it after the nodes of all terms: onnxruntime computes the input whose node comes last first, so it adds each
    term before it computes the next, and only one is in memory.
    """
    total = terms[0]
    for term in terms[1:]:
        total = g.op("Add", [total, term])
    return total
