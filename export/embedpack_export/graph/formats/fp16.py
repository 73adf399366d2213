"""fp16: products of float16 matrices, for GPUs; everything between the products is float32.

Inputs of a product are cast to float16 and its result back, so the residual stream, norms, softmax of encoders, heads
and adapters cannot overflow. Kernels add up in float32. GroupQueryAttention takes float16 too, as it has no kernel for
float32 on GPUs; its softmax is float32 inside. The products themselves must have head-room (`float16_range`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, fill_columns
from embedpack_export.graph.context import Activation, GraphContext, LinearFormat, LinearLayer, add_bias
from embedpack_export.graph.formats.float16_range import ProductRanges
from embedpack_export.quantization.integers import ErrorSum

FLOAT, FLOAT16 = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)
GROUP, OPTION = "fp16", "--weights fp16"


@dataclass(frozen=True)
class Fp16(LinearFormat):
    """Linear layers as MatMul of float16, tables of float16."""

    in_parts = False  # Few large products are faster on GPUs.
    device = "cuda"

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`; CheckpointError for a product without head-room."""
        ranges = ProductRanges.of(context, OPTION)
        ranges.add_input(context, x)
        half = context.graph.op("Cast", [x.value], {"to": FLOAT16})
        for layer in layers:
            ranges.add_product(layer, context.statistics[x.site], half_sums=False)
        return [[_product(context, half, layer)] for layer in layers]

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        stored = _Halves(ProductRanges.of(context, OPTION).checked(table))
        weight = context.graph.weight(f"{table.name}.fp16", GROUP, stored.chunks(), np.float16, table.shape)
        context.log_error(table.name, stored.errors.relative)
        rows = context.graph.op("Gather", [weight, ids], {"axis": 0})
        return context.graph.op("Cast", [rows], {"to": FLOAT})


@dataclass
class _Halves:
    """Chunks of a matrix in float16, with their rounding error."""

    exact: Iterable[Float32]
    errors: ErrorSum = field(default_factory=ErrorSum)

    def chunks(self) -> Iterator[npt.NDArray[np.float16]]:
        """Successive chunks of rows."""
        for chunk in self.exact:
            halves = chunk.astype(np.float16)
            self.errors.add(chunk, halves.astype(np.float32))
            yield halves


def _product(context: GraphContext, half: ir.Value, layer: LinearLayer) -> ir.Value:
    g, matrix, stored = context.graph, layer.weight, _Halves(layer.weight.chunks())
    rows, columns = matrix.shape
    transposed = fill_columns(np.empty((columns, rows), np.float16), stored.chunks())
    context.log_error(matrix.name, stored.errors.relative)
    weight = g.weight(f"{matrix.name}.fp16", GROUP, [transposed], np.float16, transposed.shape)
    product = g.op("Cast", [g.op("MatMul", [half, weight])], {"to": FLOAT})
    return add_bias(g, product, layer.bias_name, layer.bias)
