"""int4: MatMulNBits with 4-bit weights in blocks, for memory rather than speed.

Its kernel quantizes activations per row and block (accuracy_level 4), so vectors do not depend on their batch either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack_export.graph.blocks import BLOCK, block_table
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.target import Activation, Arrangement, LinearLayer, Target, add_bias
from embedpack_export.lora import Float32
from embedpack_export.quantize import ErrorSum, block_scales, pack_blocks
from embedpack_export.rounding import Rounding, round_columns, roundings
from embedpack_export.weights import Matrix

BITS = 4


class Int4:
    """Block-wise 4-bit linears and table."""

    def linears(self, target: Target, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`."""
        seen = target.statistics[x.site]
        blocks = roundings(seen.covariance, np.ones_like(seen.mean))
        return [_product(target, x, layer, blocks, seen.mean) for layer in layers]

    def arrange(
        self, target: Target, site: str, layers: Sequence[LinearLayer], groups: tuple[int, int, int] | None
    ) -> Arrangement | None:
        """See `Target.arrange`; blocks of weights have scales of their own, and no activation is quantized."""
        return None

    def table(self, target: Target, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(target, table, ids, BITS)


def _product(target: Target, x: Activation, layer: LinearLayer, blocks: Sequence[Rounding], mean: Float32) -> ir.Value:
    g, matrix = target.graph, layer.weight
    rows, columns = matrix.shape
    width = -(-columns // BLOCK)
    errors = ErrorSum()
    scales: list[Float32] = []
    bias: list[Float32] = []

    def packed() -> Iterator[npt.NDArray[np.uint8]]:
        for chunk in matrix.chunks():
            chunk_scales = block_scales(chunk, BITS, BLOCK)
            by_column = np.repeat(chunk_scales, BLOCK, axis=1)[:, :columns]
            values = round_columns(blocks, chunk, by_column, (-8, 7))
            errors.add(chunk, values * by_column)
            scales.append(chunk_scales)
            bias.append((chunk - values * by_column) @ mean)
            yield pack_blocks(values, BITS, BLOCK)

    weight = g.weight(f"{matrix.name}.int4", "int4", packed(), np.uint8, (rows, width, BLOCK * BITS // 8))
    target.report(matrix.name, errors.relative)
    weight_scales = g.weight(f"{matrix.name}.scales", "int4", scales, np.float32, (rows, width))
    attributes = {"K": columns, "N": rows, "bits": BITS, "block_size": BLOCK, "accuracy_level": 4}
    product = g.op("MatMulNBits", [x.value, weight, weight_scales], attributes, domain=CONTRIB)
    corrected = np.concatenate(bias) + (0 if layer.bias is None else layer.bias)
    return add_bias(g, product, layer.bias_name, corrected.astype(np.float32), "int4")
