"""int8: activations quantized per row while the model runs, weights per output channel, u8 x s8 products.

A row's scale depends on that row alone: a text's vector does not depend on the texts beside it, which per-tensor scales
(DynamicQuantizeLinear) cannot promise.

Calibration makes the rounding small, at no cost in the products:
* Channels with large values or far from zero are shifted and scaled before they are quantized, their weights the other
  way round (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438, eq. 4, with a shift as in Outlier Suppression+, Wei et al.
  2023, arXiv 2304.09145). A norm does that itself, with other weights; a linear layer in front does it with its scales.
* How far to go is chosen for each activation by the error that tokens of the calibration show.
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
from embedpack_export.graph.smoothing import choose_rescaling
from embedpack_export.graph.target import Activation, LinearLayer, Target, add_bias
from embedpack_export.lora import Float32, fill_columns
from embedpack_export.quantize import ErrorSum, int8_scales
from embedpack_export.rounding import Rounding, round_columns, roundings
from embedpack_export.statistics import SiteStatistics
from embedpack_export.weights import Matrix

# Keeps an all-zero row finite: 0 / TINY is 0.
TINY = 1e-10


@dataclass(frozen=True)
class _Quantized:
    """A quantized activation: (value - zero) * step * largest; `shift` and `divisors` [channels] were taken out."""

    values: ir.Value
    largest: ir.Value
    step: ir.Value
    zero: ir.Value
    shift: Float32
    divisors: Float32


class Int8:
    """Per-row dynamic int8 linears and a block-wise 8-bit table."""

    def linears(self, target: Target, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`. The activation is quantized once for all layers."""
        seen = target.statistics[x.site]
        quantized = _quantize(target.graph, x, seen, layers)
        blocks = roundings(seen.covariance, quantized.divisors)
        return [_product(target, quantized, layer, blocks, seen.mean) for layer in layers]

    def migration(
        self, target: Target, site: str, layers: Sequence[LinearLayer], groups: tuple[int, int, int] | None
    ) -> Float32 | None:
        """See `Target.migration`."""
        weights = [layer.weight for layer in layers]
        return choose_rescaling(target.statistics[site], weights, shifts=False, groups=groups).divisors

    def table(self, target: Target, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(target, table, ids, 8)


def _quantize(g: GraphBuilder, x: Activation, seen: SiteStatistics, layers: Sequence[LinearLayer]) -> _Quantized:
    zero, steps = 128, 127
    shift = np.zeros_like(seen.mean)
    divisors = np.ones_like(seen.mean) if x.divided is None else x.divided
    if x.rescaled is not None:
        chosen = choose_rescaling(seen, [layer.weight for layer in layers], shifts=True)
        shift, divisors = chosen.shift, chosen.divisors
        value = x.rescaled(shift, divisors, "int8")
    elif x.lower_bound is not None:
        shift = np.full_like(seen.mean, x.lower_bound)
        value, zero, steps = g.op("Sub", [x.value, g.constant(x.lower_bound, np.float32)]), 0, 255
    else:
        value = x.value
    size = value if zero == 0 else g.op("Abs", [value])
    largest = g.op("ReduceMax", [size, g.constant([-1], np.int64)], {"keepdims": 1})
    largest = g.op("Max", [largest, g.constant([TINY], np.float32)])
    step, zero_point = g.constant(1 / steps, np.float32), g.constant(zero, np.uint8)
    values = g.op("QuantizeLinear", [g.op("Div", [value, largest]), step, zero_point])
    return _Quantized(values, largest, step, zero_point, shift, divisors)


def _product(target: Target, x: _Quantized, layer: LinearLayer, blocks: Sequence[Rounding], mean: Float32) -> ir.Value:
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
            scaled = chunk * x.divisors
            chunk_scales = int8_scales(scaled)
            values = round_columns(blocks, scaled, chunk_scales[:, None], (-127, 127))
            effective: Float32 = values * chunk_scales[:, None] / x.divisors
            errors.add(chunk, effective)
            scales.append(chunk_scales)
            # What the shift took out, and the error of the mean activation.
            bias.append((effective @ x.shift + (chunk - effective) @ mean).astype(np.float32))
            yield values.astype(np.int8)

    transposed = fill_columns(np.empty((columns, rows), np.int8), quantized())
    target.report(matrix.name, errors.relative)
    weight = g.weight(f"{matrix.name}.int8", "int8", [transposed], np.int8, (columns, rows))
    divisor = np.float32(1) if layer.divisor is None else layer.divisor
    weight_scales = np.concatenate(scales) / divisor
    weight_scales_value = g.vector(f"{matrix.name}.scales", weight_scales.astype(np.float32), "int8")
    product = g.op("MatMulIntegerToFloat", [x.values, weight, x.step, weight_scales_value, x.zero], domain=CONTRIB)
    corrected = (np.concatenate(bias) + (0 if layer.bias is None else layer.bias)) / divisor
    return add_bias(g, g.op("Mul", [product, x.largest]), layer.bias_name, corrected.astype(np.float32), "int8")
