"""int4 for GPUs: the graph of fp16 weights, with MatMulNBits in place of its products.

Activations of products are float16, as are the scales of the blocks, since the kernels of GPUs take one type for both;
everything between the products is float32 (`fp16`). The weights are rounded as those for CPUs (`int4_rounding`): 4.5
bits a weight.

onnxruntime's kernels for 16 rows or fewer add up a part of the terms in float16, those for more rows in float32. So the
head-room is that of partial sums in any order (`float16_range`).

Embedding tables are int8 with a scale for each row, read by standard operators: GatherBlockQuantized computes other
values on GPUs than on CPUs without any error (onnxruntime issues 31692, zero point, and 32663, short last block).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import Activation, GraphContext, LinearFormat, LinearLayer, add_bias
from embedpack_export.graph.formats.float16_range import ProductRanges
from embedpack_export.graph.formats.int4_rounding import Int4Matrix, WeightRounding
from embedpack_export.quantization.gptq import RoundingMethod
from embedpack_export.quantization.integers import ErrorSum, int8_scales

FLOAT, FLOAT16 = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)
GROUP, OPTION = "int4", "--weights int4 --device cuda"
# Smallest magnitude of float16.
SMALLEST = np.finfo(np.float16).smallest_subnormal


@dataclass(frozen=True)
class Int4Cuda(LinearFormat):
    """Linear layers in 4 bits, block by block, with activations of float16; `method` as of `Int4`."""

    in_parts = False  # Few large products are faster on GPUs.
    device = "cuda"
    method: RoundingMethod = "gptaq"

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`; CheckpointError for a product without head-room."""
        ranges = ProductRanges.of(context, OPTION)
        ranges.add_input(context, x)
        for layer in layers:
            ranges.add_product(layer, context.statistics[x.site], half_sums=True)
        rounding = WeightRounding.of(self.method, context, x, layers)
        half = context.graph.op("Cast", [x.value], {"to": FLOAT16})
        return [[_product(context, half, layer, rounding)] for layer in layers]

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        g, errors, scales = context.graph, ErrorSum(), list[Float32]()

        def integers() -> Iterator[npt.NDArray[np.int8]]:
            for chunk in table.chunks():
                scales.append(int8_scales(chunk)[:, None])
                values = np.rint(chunk / scales[-1])
                errors.add(chunk, values * scales[-1])
                yield values.astype(np.int8)

        values = g.weight(f"{table.name}.int8", GROUP, integers(), np.int8, table.shape)
        context.log_error(table.name, errors.relative)
        steps = g.weight(f"{table.name}.steps", GROUP, scales, np.float32, (table.shape[0], 1))
        rows, step = (g.op("Gather", [each, ids], {"axis": 0}) for each in (values, steps))
        return g.op("Mul", [g.op("Cast", [rows], {"to": FLOAT}), step])


@dataclass(frozen=True)
class HalfScales:
    """Scales of blocks in float16 [n, blocks], none of which is 0."""

    halves: npt.NDArray[np.float16]

    @classmethod
    def of(cls, scales: Float32) -> HalfScales:
        """Round scales float32 [n, blocks]; no magnitude is below the smallest of float16."""
        halves = scales.astype(np.float16)
        return cls(np.where(halves == 0, np.copysign(SMALLEST, scales), halves).astype(np.float16))

    @property
    def values(self) -> Float32:
        """The scales, float32 [n, blocks]."""
        return self.halves.astype(np.float32)


def _product(context: GraphContext, half: ir.Value, layer: LinearLayer, rounding: WeightRounding) -> ir.Value:
    g, matrix = context.graph, layer.weight
    rounded = Int4Matrix(matrix, rounding, HalfScales.of)
    weight = g.weight(f"{matrix.name}.int4", GROUP, rounded.chunks(), np.uint8, rounded.packed_shape)
    context.log_error(matrix.name, rounded.errors.relative)
    halves = np.concatenate([scales.halves for scales in rounded.scales])
    scales = g.weight(f"{matrix.name}.scales", GROUP, [halves], np.float16, halves.shape)
    product = g.op("MatMulNBits", [half, weight, scales], rounded.attributes, domain=CONTRIB)
    return add_bias(g, g.op("Cast", [product], {"to": FLOAT}), layer.bias_name, rounded.bias(layer), GROUP)
