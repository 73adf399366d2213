"""int4: MatMulNBits with 4-bit weights in blocks, for memory rather than speed.

Its kernel quantizes activations per row and block (accuracy_level 4), so vectors do not depend on their batch either.

Calibration makes the rounding small:
* Weights are rounded to fit the covariance of the activations that reach them, through the layers in front as these
  were written (`embedpack_export.quantization.gptq`).
* Before that they are moved to make up for what those layers lost (`embedpack_export.quantization.error_compensation`).
* The mean error that is left goes into the bias.

The scale of a block of 32 weights takes a byte: 4.25 bits a weight, and one float a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack_export.arrays import Float32, Matrix
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer, add_bias
from embedpack_export.graph.formats.blocks import BLOCK, block_table, coded_scales
from embedpack_export.quantization.channel_layout import ChannelLayout
from embedpack_export.quantization.error_compensation import Drift, Passage
from embedpack_export.quantization.gptq import Rounding, regression, round_columns
from embedpack_export.quantization.integers import (
    CodedScales,
    ErrorSum,
    block_scales,
    dequantize_blocks,
    pack_blocks,
    round_nearest,
)

BITS = 4
Method = Literal["made up", "fitted", "nearest"]


@dataclass(frozen=True)
class Int4:
    """Block-wise 4-bit linears and table.

    `rounding` is weaker only where a comparison asks for it: "fitted" to what arrives, without making up for losses;
    "nearest" without any calibration.
    """

    rounding: Method = "made up"

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`."""
        residual = [layer.residual for layer in layers if layer.residual is not None]
        drift = Drift.of(context.statistics[x.site].mean, _passages(context, x, *residual))
        fit = _Fit(self.rounding, drift, drift.roundings())
        return [_product(context, x, layer, fit) for layer in layers]

    def channel_layout(
        self, context: GraphContext, site: str, layers: Sequence[LinearLayer], groups: tuple[int, int, int] | None
    ) -> ChannelLayout | None:
        """See `GraphContext.channel_layout`: None, since activations are not quantized here."""
        return None

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(context, table, ids, BITS)


def _passages(context: GraphContext, x: Activation, residual: Activation | None = None) -> Iterator[Passage]:
    """The batches of the calibration at layers that read x, and whose results are added to `residual`."""
    read = [x] if residual is None else [x, residual]
    recordings = [recording for item in read if (recording := context.statistics[item.site].recording) is not None]
    assert context.arrivals is not None
    arrivals = context.arrivals([item.value for item in read], recordings[0].batches)
    for (exact, *behind), (arrived, *there) in zip(zip(*recordings, strict=True), arrivals, strict=True):
        missing = behind[0].values - there[0] if there else np.empty((len(arrived), 0), np.float32)
        yield Passage(exact, arrived, missing)


@dataclass(frozen=True)
class _Fit:
    """What weights are rounded to fit."""

    method: Method
    drift: Drift
    blocks: Sequence[Rounding]

    def wanted(self, weights: Float32, rows: slice) -> Float32:
        """What is rounded in place of weights [n, k], those rows of the matrix."""
        if self.method != "made up":
            return weights
        return weights + regression(self.blocks, self.drift.owed(weights, rows))

    def integers(self, weights: Float32, scales: Float32) -> Float32:
        """Of weights with the scales of their blocks, float32 [n, k]."""
        if self.method == "nearest":
            return round_nearest(weights, scales, BITS, BLOCK)
        by_column = np.repeat(scales, BLOCK, axis=1)[:, : weights.shape[1]]
        return round_columns(self.blocks, weights, by_column, (-8, 7))

    def bias(self, weights: Float32, rounded: Float32, rows: slice) -> Float32:
        """What results of rounded weights lack in the mean, [n]."""
        if self.method == "nearest":
            return np.zeros(len(weights), np.float32)
        lacking = weights @ self.drift.exact - rounded @ self.drift.mean
        return lacking + self.drift.missing[rows] if len(self.drift.missing) else lacking


@dataclass
class _Rounded:
    """The chunks of a matrix in 4 bits: what belongs to the integers."""

    scales: list[CodedScales] = field(default_factory=list)
    bias: list[Float32] = field(default_factory=list)
    errors: ErrorSum = field(default_factory=ErrorSum)

    def chunks(self, matrix: Matrix, fit: _Fit) -> Iterator[npt.NDArray[np.uint8]]:
        """Packed integers."""
        start = 0
        for chunk in matrix.chunks():
            rows = slice(start, start + len(chunk))
            wanted = fit.wanted(chunk, rows)
            scales = CodedScales.of(block_scales(wanted, BITS, BLOCK))
            values = fit.integers(wanted, scales.values)
            effective = dequantize_blocks(values, scales.values, BLOCK)
            self.errors.add(wanted, effective)
            self.scales.append(scales)
            self.bias.append(fit.bias(chunk, effective, rows))
            start = rows.stop
            yield pack_blocks(values, BITS, BLOCK)


def _product(context: GraphContext, x: Activation, layer: LinearLayer, fit: _Fit) -> ir.Value:
    g, matrix, rounded = context.graph, layer.weight, _Rounded()
    rows, columns = matrix.shape
    width = -(-columns // BLOCK)
    packed = rounded.chunks(matrix, fit)
    weight = g.weight(f"{matrix.name}.int4", "int4", packed, np.uint8, (rows, width, BLOCK * BITS // 8))
    context.report(matrix.name, rounded.errors.relative)
    scales = coded_scales(g, matrix.name, "int4", rounded.scales)
    attributes = {"K": columns, "N": rows, "bits": BITS, "block_size": BLOCK, "accuracy_level": 4}
    product = g.op("MatMulNBits", [x.value, weight, scales], attributes, domain=CONTRIB)
    corrected = np.concatenate(rounded.bias) + (0 if layer.bias is None else layer.bias)
    return add_bias(g, product, layer.bias_name, corrected.astype(np.float32), "int4")
