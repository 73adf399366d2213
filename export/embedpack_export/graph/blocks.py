"""Block-wise quantized tables: rows of 4- or 8-bit values with one scale for every BLOCK columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.target import Target
from embedpack_export.lora import Float32
from embedpack_export.quantize import ErrorSum, block_scales, dequantize_blocks, pack_blocks, round_nearest
from embedpack_export.weights import Matrix

BLOCK = 32


def block_table(target: Target, table: Matrix, ids: ir.Value, bits: int) -> ir.Value:
    """Rows of an embedding table [vocabulary, hidden] for token ids, through GatherBlockQuantized."""
    g = target.graph
    rows, columns = table.shape
    blocks, stored = -(-columns // BLOCK), columns * bits // 8
    errors = ErrorSum()
    scales: list[Float32] = []

    def packed() -> Iterator[npt.NDArray[np.uint8]]:
        for chunk in table.chunks():
            chunk_scales = block_scales(chunk, bits, BLOCK)
            values = round_nearest(chunk, chunk_scales, bits, BLOCK)
            errors.add(chunk, dequantize_blocks(values, chunk_scales, BLOCK))
            scales.append(chunk_scales)
            # The operator gives back all columns that are stored: the filling of a short last block has to go.
            yield pack_blocks(values, bits, BLOCK).reshape(len(chunk), -1)[:, :stored]

    group = f"int{bits}"
    values = g.weight(f"{table.name}.int{bits}", group, packed(), np.uint8, (rows, stored))
    target.report(table.name, errors.relative)
    weight_scales = g.weight(f"{table.name}.scales", group, scales, np.float32, (rows, blocks))
    attributes = {"bits": bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    return g.op("GatherBlockQuantized", [values, ids, weight_scales], attributes, domain=CONTRIB)
