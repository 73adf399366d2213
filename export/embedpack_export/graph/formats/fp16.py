"""fp16: products of float16 matrices, for GPUs; everything between the products is float32.

Inputs of a product are cast to float16 and its result back, so the residual stream, norms, softmax of encoders, heads
and adapters cannot overflow. Kernels add up in float32. GroupQueryAttention takes float16 too, as it has no kernel for
float32 on GPUs; its softmax is float32 inside.

A value above 65504 becomes infinite in float16, and a kernel may hide that: the vector is wrong without a sign of it.
So the largest magnitudes are measured on the calibration texts, in float32, and an export without head-room is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.pack.accuracy_records import Headroom
from embedpack_export.arrays import Matrix, fill_columns
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer, add_bias
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.integers import ErrorSum
from embedpack_export.quantization.statistics import SiteStatistics

FLOAT, FLOAT16 = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)
MAX_FLOAT16 = 65504.0
# Other texts may have values as many times as large as the calibration texts.
MIN_HEADROOM = 4.0
GROUP, RANGES = "fp16", "ranges"


@dataclass
class ProductRanges:
    """Largest magnitudes of the products of a graph on the calibration texts."""

    products: int = 0
    largest: float = 0.0
    value: str = ""  # value that has it: a site, or the output of a layer

    def add(self, value: str, largest: float) -> None:
        """Add the largest magnitude of a value; CheckpointError without head-room."""
        if not largest <= MAX_FLOAT16 / MIN_HEADROOM:
            raise CheckpointError(
                f"{value} reaches {largest:.0f} on the calibration texts; float16 ends at {MAX_FLOAT16:.0f}, and "
                f"{MIN_HEADROOM:g} times the largest value must fit: leave out --weights fp16"
            )
        if largest > self.largest:
            self.largest, self.value = largest, value


@dataclass(frozen=True)
class Fp16:
    """Linear layers as MatMul of float16, tables of float16."""

    @property
    def in_parts(self) -> bool:
        """See `LinearFormat`: False, as few large products are faster on GPUs."""
        return False

    @property
    def half_attention(self) -> bool:
        """See `LinearFormat`."""
        return True

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`; CheckpointError for a product without head-room."""
        ranges = context.once(RANGES, ProductRanges)
        statistics = context.statistics[x.site]
        ranges.add(x.site, float(max(np.abs(statistics.low).max(), np.abs(statistics.high).max())))
        half = context.graph.op("Cast", [x.value], {"to": FLOAT16})
        return [[_product(context, half, layer, statistics, ranges)] for layer in layers]

    def channel_layout(
        self, context: GraphContext, site: str, layers: Sequence[LinearLayer], groups: ChannelGroups | None
    ) -> ChannelLayout | None:
        """See `GraphContext.channel_layout`: None, since nothing is quantized."""
        return None

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        stored = _Halves(table)
        weight = context.graph.weight(f"{table.name}.fp16", GROUP, stored.chunks(), np.float16, table.shape)
        context.log_error(table.name, stored.errors.relative)
        rows = context.graph.op("Gather", [weight, ids], {"axis": 0})
        return context.graph.op("Cast", [rows], {"to": FLOAT})


def headroom(context: GraphContext) -> Headroom | None:
    """Head-room of a written graph; None: it has no float16 products."""
    ranges = context.shared.get(RANGES)
    if not isinstance(ranges, ProductRanges):
        return None
    return Headroom(
        products=ranges.products,
        largest=round(ranges.largest, 3),
        value=ranges.value,
        factor=round(MAX_FLOAT16 / ranges.largest, 1),
    )


@dataclass
class _Halves:
    """A matrix in float16, with its rounding error."""

    matrix: Matrix
    errors: ErrorSum = field(default_factory=ErrorSum)

    def chunks(self) -> Iterator[npt.NDArray[np.float16]]:
        """Successive chunks of rows; CheckpointError for a value that float16 does not have."""
        for chunk in self.matrix.chunks():
            largest = float(np.abs(chunk).max())
            if largest > MAX_FLOAT16:
                raise CheckpointError(
                    f"{self.matrix.name}: a weight is {largest:.0f}, and float16 ends at {MAX_FLOAT16:.0f}; "
                    "leave out --weights fp16"
                )
            halves = chunk.astype(np.float16)
            self.errors.add(chunk, halves.astype(np.float32))
            yield halves


def _product(
    context: GraphContext, half: ir.Value, layer: LinearLayer, statistics: SiteStatistics, ranges: ProductRanges
) -> ir.Value:
    g, matrix, stored = context.graph, layer.weight, _Halves(layer.weight)
    ranges.add(f"output of {layer.module}", _largest_output(layer, statistics))
    ranges.products += 1
    rows, columns = matrix.shape
    transposed = fill_columns(np.empty((columns, rows), np.float16), stored.chunks())
    context.log_error(matrix.name, stored.errors.relative)
    weight = g.weight(f"{matrix.name}.fp16", GROUP, [transposed], np.float16, transposed.shape)
    product = g.op("Cast", [g.op("MatMul", [half, weight])], {"to": FLOAT})
    return add_bias(g, product, layer.bias_name, layer.bias)


def _largest_output(layer: LinearLayer, statistics: SiteStatistics) -> float:
    """Largest magnitude of the products of all calibration tokens, plus that of the bias."""
    assert statistics.activations is not None
    largest = max(
        float(np.abs(tokens.values @ rows.T).max())
        for rows in layer.weight.chunks()
        for tokens in statistics.activations
    )
    return largest + (0.0 if layer.bias is None else float(np.abs(layer.bias).max()))
