"""int4: MatMulNBits with 4-bit weights in blocks, on CPUs, for memory rather than speed.

The kernel quantizes activations per row and block (accuracy_level 4), so a vector does not depend on the other inputs
of its batch. The weights are rounded with calibration (`int4_rounding`).

A block of 32 weights has a scale of one byte, and a row one float32: 4.25 bits a weight, and 32 bits a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import Activation, GraphContext, LinearFormat, LinearLayer, add_bias
from embedpack_export.graph.formats.blocks import block_table, coded_scales
from embedpack_export.graph.formats.int4_rounding import BITS, Int4Matrix, WeightRounding
from embedpack_export.quantization.gptq import RoundingMethod
from embedpack_export.quantization.integers import QuantizedScales


@dataclass(frozen=True)
class Int4(LinearFormat):
    """Linear layers and embedding table in 4 bits, block by block.

    `method` is weaker than "gptaq" only for comparisons: "gptq" does not compensate the errors of earlier layers, "rtn"
    uses no calibration.
    """

    in_parts = False  # A matrix is written in one stream.
    method: RoundingMethod = "gptaq"

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`."""
        rounding = WeightRounding.of(self.method, context, x, layers)
        return [[_product(context, x, layer, rounding)] for layer in layers]

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(context, table, ids, BITS)


def _product(context: GraphContext, x: Activation, layer: LinearLayer, rounding: WeightRounding) -> ir.Value:
    g, matrix = context.graph, layer.weight
    rounded = Int4Matrix(matrix, rounding, QuantizedScales.of)
    weight = g.weight(f"{matrix.name}.int4", "int4", rounded.chunks(), np.uint8, rounded.packed_shape)
    context.log_error(matrix.name, rounded.errors.relative)
    scales = coded_scales(g, matrix.name, "int4", rounded.scales)
    attributes = rounded.attributes | {"accuracy_level": 4}
    product = g.op("MatMulNBits", [x.value, weight, scales], attributes, domain=CONTRIB)
    return add_bias(g, product, layer.bias_name, rounded.bias(layer), "int4")
