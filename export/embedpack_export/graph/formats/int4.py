"""int4: MatMulNBits with 4-bit weights in blocks, for memory rather than speed.

The kernel quantizes activations per row and block (accuracy_level 4), so a vector does not depend on the other inputs
of its batch.

Calibration keeps the rounding error small:
* The weights are first corrected for the errors of the quantized layers before
  (`embedpack_export.quantization.error_compensation`).
* They are then rounded by GPTQ for the covariance of the quantized input, as the graph written so far computes it
  (`embedpack_export.quantization.gptq`).
* The remaining mean error goes into the bias.

A block of 32 weights has a scale of one byte, and a row one float32: 4.25 bits a weight, and 32 bits a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer, add_bias
from embedpack_export.graph.formats.blocks import BLOCK_COLUMNS, block_table, coded_scales
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.error_compensation import LayerBatch, QuantizedInputStats
from embedpack_export.quantization.gptq import Rounding, RoundingMethod, regression, round_columns
from embedpack_export.quantization.integers import (
    ErrorSum,
    QuantizedScales,
    block_scales,
    dequantize_blocks,
    pack_blocks,
    round_nearest,
)

BITS = 4


@dataclass(frozen=True)
class Int4:
    """Linear layers and embedding table in 4 bits, block by block.

    `method` is weaker than "gptaq" only for comparisons: "gptq" does not compensate the errors of earlier layers, "rtn"
    uses no calibration.
    """

    method: RoundingMethod = "gptaq"

    @property
    def in_parts(self) -> bool:
        """See `LinearFormat`: False, since a matrix is written in one stream."""
        return False

    @property
    def half_attention(self) -> bool:
        """See `LinearFormat`."""
        return False

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`."""
        residuals = [layer.residual for layer in layers if layer.residual is not None]
        statistics = QuantizedInputStats.of(context.statistics[x.site].mean, _layer_batches(context, x, *residuals))
        rounding = _WeightRounding(self.method, statistics, statistics.roundings())
        return [[_product(context, x, layer, rounding)] for layer in layers]

    def channel_layout(
        self, context: GraphContext, site: str, layers: Sequence[LinearLayer], groups: ChannelGroups | None
    ) -> ChannelLayout | None:
        """See `GraphContext.channel_layout`: None, since activations are not quantized here."""
        return None

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(context, table, ids, BITS)


def _layer_batches(context: GraphContext, x: Activation, residual: Activation | None = None) -> Iterator[LayerBatch]:
    """Calibration batches at layers that read x and whose results are added to `residual`."""
    read = [x] if residual is None else [x, residual]
    files = [file for activation in read if (file := context.statistics[activation.site].activations) is not None]
    assert context.written is not None
    written = context.written([activation.value for activation in read], files[0].batches)
    batches = zip(zip(*files, strict=True), written, strict=True)
    for (exact, *exact_residual), (quantized, *quantized_residual) in batches:
        error = np.empty((len(quantized), 0), np.float32)
        if exact_residual:
            error = exact_residual[0].values - quantized_residual[0]
        yield LayerBatch(exact, quantized, error)


@dataclass(frozen=True)
class _WeightRounding:
    """Rounding of the weights that read one activation."""

    method: RoundingMethod
    statistics: QuantizedInputStats
    blocks: Sequence[Rounding]

    def corrected(self, weights: Float32, rows: slice) -> Float32:
        """Weights [n, k] with error compensation; `rows` are their rows in the matrix."""
        if self.method != "gptaq":
            return weights
        return weights + regression(self.blocks, self.statistics.correction(weights, rows))

    def integers(self, weights: Float32, scales: Float32) -> Float32:
        """Integers for weights [n, k] with the scales of their blocks [n, blocks], float32 [n, k]."""
        if self.method == "rtn":
            return round_nearest(weights, scales, BITS, BLOCK_COLUMNS)
        by_column = np.repeat(scales, BLOCK_COLUMNS, axis=1)[:, : weights.shape[1]]
        return round_columns(self.blocks, weights, by_column, -8, 7)

    def mean_error(self, weights: Float32, rounded: Float32, rows: slice) -> Float32:
        """Mean of W x + r - V y, which the bias adds back, [n]: V are the rounded weights (0 for "rtn")."""
        if self.method == "rtn":
            return np.zeros(len(weights), np.float32)
        error = weights @ self.statistics.exact_mean - rounded @ self.statistics.mean
        return error + self.statistics.residual_error[rows] if len(self.statistics.residual_error) else error


@dataclass
class _Int4Matrix:
    """Scales, mean errors and rounding error of a matrix in 4 bits, filled while its integers are streamed."""

    scales: list[QuantizedScales] = field(default_factory=list)
    mean_errors: list[Float32] = field(default_factory=list)
    errors: ErrorSum = field(default_factory=ErrorSum)

    def chunks(self, matrix: Matrix, rounding: _WeightRounding) -> Iterator[npt.NDArray[np.uint8]]:
        """Round a matrix chunk by chunk; yields the packed integers."""
        start = 0
        for chunk in matrix.chunks():
            rows = slice(start, start + len(chunk))
            corrected = rounding.corrected(chunk, rows)
            scales = QuantizedScales.of(block_scales(corrected, BITS, BLOCK_COLUMNS))
            integers = rounding.integers(corrected, scales.values)
            rounded = dequantize_blocks(integers, scales.values, BLOCK_COLUMNS)
            self.errors.add(corrected, rounded)
            self.scales.append(scales)
            self.mean_errors.append(rounding.mean_error(chunk, rounded, rows))
            start = rows.stop
            yield pack_blocks(integers, BITS, BLOCK_COLUMNS)


def _product(context: GraphContext, x: Activation, layer: LinearLayer, rounding: _WeightRounding) -> ir.Value:
    g, matrix, rounded = context.graph, layer.weight, _Int4Matrix()
    rows, columns = matrix.shape
    width = -(-columns // BLOCK_COLUMNS)
    packed = rounded.chunks(matrix, rounding)
    weight = g.weight(f"{matrix.name}.int4", "int4", packed, np.uint8, (rows, width, BLOCK_COLUMNS * BITS // 8))
    context.log_error(matrix.name, rounded.errors.relative)
    scales = coded_scales(g, matrix.name, "int4", rounded.scales)
    attributes = {"K": columns, "N": rows, "bits": BITS, "block_size": BLOCK_COLUMNS, "accuracy_level": 4}
    product = g.op("MatMulNBits", [x.value, weight, scales], attributes, domain=CONTRIB)
    bias = np.concatenate(rounded.mean_errors) + (0 if layer.bias is None else layer.bias)
    return add_bias(g, product, layer.bias_name, bias.astype(np.float32), "int4")
