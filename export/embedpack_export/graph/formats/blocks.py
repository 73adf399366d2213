"""Block-wise quantized matrices and tables: 4- or 8-bit values with one scale for BLOCK_COLUMNS columns of a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import GraphContext
from embedpack_export.quantization.integers import (
    ErrorSum,
    QuantizedScales,
    block_scales,
    dequantize_blocks,
    pack_blocks,
    round_nearest,
)

BLOCK_COLUMNS = 32


def coded_scales(g: GraphBuilder, matrix: str, group: str, chunks: Sequence[QuantizedScales]) -> ir.Value:
    """Scales float32 [rows, blocks] from stored bytes; onnxruntime folds the product when it loads a graph."""
    codes = np.concatenate([chunk.codes for chunk in chunks])
    steps = np.concatenate([chunk.steps for chunk in chunks])
    stored = g.weight(f"{matrix}.scales", group, [codes], np.int8, codes.shape)
    step = g.weight(f"{matrix}.steps", group, [steps], np.float32, steps.shape)
    return g.op("Mul", [g.op("Cast", [stored], {"to": int(ir.DataType.FLOAT)}), step])


def block_table(context: GraphContext, table: Matrix, ids: ir.Value, bits: int) -> ir.Value:
    """Append the lookup of token ids in an embedding table [vocabulary, hidden], as GatherBlockQuantized.

    Its scales are stored as float32: OpenVINO loads the operator with constant scales only.
    """
    g = context.graph
    rows, columns = table.shape
    stored = columns * bits // 8
    errors = ErrorSum()
    scales: list[Float32] = []

    def packed() -> Iterator[npt.NDArray[np.uint8]]:
        for chunk in table.chunks():
            scales.append(block_scales(chunk, bits, BLOCK_COLUMNS))
            values = round_nearest(chunk, scales[-1], bits, BLOCK_COLUMNS)
            errors.add(chunk, dequantize_blocks(values, scales[-1], BLOCK_COLUMNS))
            # The operator returns all stored columns, so the padding of a short last block is cut off.
            yield pack_blocks(values, bits, BLOCK_COLUMNS).reshape(len(chunk), -1)[:, :stored]

    group = f"int{bits}"
    values = g.weight(f"{table.name}.int{bits}", group, packed(), np.uint8, (rows, stored))
    context.log_error(table.name, errors.relative)
    weight_scales = g.weight(f"{table.name}.scales", group, scales, np.float32, (rows, -(-columns // BLOCK_COLUMNS)))
    attributes = {"bits": bits, "block_size": BLOCK_COLUMNS, "gather_axis": 0, "quantize_axis": 1}
    return g.op("GatherBlockQuantized", [values, ids, weight_scales], attributes, domain=CONTRIB)
