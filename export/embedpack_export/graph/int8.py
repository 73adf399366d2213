"""int8: activations quantized per row while the model runs, weights per output channel, u8 x s8 products.

A row's scale depends on that row alone: a text's vector does not depend on the texts beside it, which per-tensor scales
(DynamicQuantizeLinear) cannot promise.

Calibration makes the rounding small, at no cost in the products:
* Channels with large values or far from zero are shifted and scaled before they are quantized, their weights the other
  way round (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438, eq. 4, with a shift as in Outlier Suppression+, Wei et al.
  2023, arXiv 2304.09145). A norm does that itself, with other weights.
* Values with a lower bound (GELU's) use the whole range of u8 above it.
* Weights are rounded to fit the activations' covariance (`embedpack_export.rounding`), and the mean error that is left
  goes into the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack_export.graph.blocks import block_table
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.target import Activation, LinearLayer, Target, add_bias
from embedpack_export.lora import Float32, fill_columns
from embedpack_export.quantize import ErrorSum, int8_scales
from embedpack_export.rounding import Rounding
from embedpack_export.statistics import SiteStatistics
from embedpack_export.weights import Matrix

# Keeps an all-zero row finite: 0 / TINY is 0.
TINY = 1e-10
# How much of a channel's size moves from the activations to the weights: 0 nothing, 1 all. Of 0.5, 0.6, 0.7 and 0.85
# the best on half of the shipped calibration texts, with statistics from the other half.
MIGRATION = 0.7


@dataclass(frozen=True)
class _Quantized:
    """A quantized activation: (value - zero) * step * largest, with `shift` and `scale` [channels] taken out before."""

    values: ir.Value
    largest: ir.Value
    step: ir.Value
    zero: ir.Value
    shift: Float32
    scale: Float32


class Int8:
    """Per-row dynamic int8 linears and a block-wise 8-bit table."""

    def linears(self, target: Target, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`. The activation is quantized once for all layers."""
        seen = target.statistics[x.site]
        quantized = _quantize(target.graph, x, seen, layers)
        rounding = Rounding.for_covariance(seen.covariance / np.outer(quantized.scale, quantized.scale))
        return [_product(target, quantized, layer, rounding, seen.mean) for layer in layers]

    def table(self, target: Target, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(target, table, ids, 8)


def _quantize(g: GraphBuilder, x: Activation, seen: SiteStatistics, layers: Sequence[LinearLayer]) -> _Quantized:
    value, zero, steps = x.value, 128, 127
    shift, scale = np.zeros_like(seen.mean), np.ones_like(seen.mean)
    if x.rescaled is not None:
        shift, scale = seen.center, _migration(seen, layers)
        value = x.rescaled(shift, scale, "int8")
    elif x.lower_bound is not None:
        shift = np.full_like(seen.mean, x.lower_bound)
        value, zero, steps = g.op("Sub", [value, g.constant(x.lower_bound, np.float32)]), 0, 255
    size = value if zero == 0 else g.op("Abs", [value])
    largest = g.op("ReduceMax", [size, g.constant([-1], np.int64)], {"keepdims": 1})
    largest = g.op("Max", [largest, g.constant([TINY], np.float32)])
    step, zero_point = g.constant(1 / steps, np.float32), g.constant(zero, np.uint8)
    values = g.op("QuantizeLinear", [g.op("Div", [value, largest]), step, zero_point])
    return _Quantized(values, largest, step, zero_point, shift, scale)


def _migration(seen: SiteStatistics, layers: Sequence[LinearLayer]) -> Float32:
    """Scale per channel [k]: large where activations are large and weights small; geometric mean 1."""
    activations = np.maximum(seen.reach, np.float32(1e-4))
    weights = np.maximum(np.max([_column_reach(layer.weight) for layer in layers], axis=0), np.float32(1e-5))
    scale = activations**MIGRATION / weights ** (1 - MIGRATION)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _column_reach(matrix: Matrix) -> Float32:
    return np.max([np.abs(chunk).max(0) for chunk in matrix.chunks()], axis=0).astype(np.float32)


def _product(target: Target, x: _Quantized, layer: LinearLayer, rounding: Rounding, mean: Float32) -> ir.Value:
    """One layer on a quantized activation.

    The bias cannot ride in the integer product: the row's maximum would multiply it.
    """
    g, matrix = target.graph, layer.weight
    rows, columns = matrix.shape
    errors = ErrorSum()
    scales: list[Float32] = []
    bias: list[Float32] = []

    def quantized() -> Iterator[npt.NDArray[np.int8]]:
        for chunk in matrix.chunks():
            scaled = chunk * x.scale
            chunk_scales = int8_scales(scaled)
            values = rounding.round(scaled, chunk_scales[:, None], -127, 127)
            effective: Float32 = values * chunk_scales[:, None] / x.scale
            errors.add(chunk, effective)
            scales.append(chunk_scales)
            # What the shift took out, and the error of the mean activation.
            bias.append((effective @ x.shift + (chunk - effective) @ mean).astype(np.float32))
            yield values.astype(np.int8)

    transposed = fill_columns(np.empty((columns, rows), np.int8), quantized())
    target.report(matrix.name, errors.relative)
    weight = g.weight(f"{matrix.name}.int8", "int8", [transposed], np.int8, (columns, rows))
    weight_scales = g.weight(f"{matrix.name}.scales", "int8", scales, np.float32, (rows,))
    product = g.op("MatMulIntegerToFloat", [x.values, weight, x.step, weight_scales, x.zero], domain=CONTRIB)
    corrected = np.concatenate(bias) + (0 if layer.bias is None else layer.bias)
    return add_bias(g, g.op("Mul", [product, x.largest]), layer.bias_name, corrected.astype(np.float32), "int8")
