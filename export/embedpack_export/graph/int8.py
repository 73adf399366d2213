"""int8: activations quantized per row while the model runs, weights per output channel, u8 x s8 products.

A row's scale depends on that row alone: a text's vector does not depend on the texts beside it, which per-tensor scales
(DynamicQuantizeLinear) cannot promise.

Calibration makes the rounding small, at no cost in the products:
* Channels with large values or far from zero are shifted and scaled before they are quantized, their weights the other
  way round (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438, eq. 4, with a shift as in Outlier Suppression+, Wei et al.
  2023, arXiv 2304.09145). A norm does that itself, with other weights; a linear layer in front does it with its scales.
* How far to go is chosen for each activation by the error that tokens of the calibration show.
* Where that linear layer is in front, rows are also centered on the middle of their own range: what was taken off comes
  back as center x the sum of each output's weights.
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
    """A quantized activation: (value - zero) * step * largest + center of the row (None: 0).

    Before that, `shift` was taken off and each channel divided by `divisors`; both [channels].
    """

    values: ir.Value
    largest: ir.Value
    step: ir.Value
    zero: ir.Value
    center: ir.Value | None
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
    shift, divisors = np.zeros_like(seen.mean), np.ones_like(seen.mean)
    if x.rescaled is not None:
        chosen = choose_rescaling(seen, [layer.weight for layer in layers], shifts=True)
        rows = _Rows.symmetric(g, x.rescaled(chosen.shift, chosen.divisors, "int8"))
        shift, divisors = chosen.shift, chosen.divisors
    elif x.divided is not None:
        rows = _Rows.centered(g, x.value)
        divisors = x.divided
    elif x.lower_bound is not None:
        rows = _Rows.above(g, x.value, x.lower_bound)
        shift = np.full_like(seen.mean, x.lower_bound)
    else:
        rows = _Rows.symmetric(g, x.value)
    largest = g.op("Max", [rows.largest, g.constant([TINY], np.float32)])
    steps = 255 if rows.zero == 0 else 127
    step, zero = g.constant(1 / steps, np.float32), g.constant(rows.zero, np.uint8)
    values = g.op("QuantizeLinear", [g.op("Div", [rows.value, largest]), step, zero])
    return _Quantized(values, largest, step, zero, rows.center, shift, divisors)


@dataclass(frozen=True)
class _Rows:
    """Rows ready to be divided by the largest size in them; what `center` holds was taken off."""

    value: ir.Value
    largest: ir.Value
    zero: int
    center: ir.Value | None = None

    @classmethod
    def symmetric(cls, g: GraphBuilder, value: ir.Value) -> _Rows:
        return cls(value, _reduce(g, "ReduceMax", g.op("Abs", [value])), 128)

    @classmethod
    def above(cls, g: GraphBuilder, value: ir.Value, bound: float) -> _Rows:
        value = g.op("Sub", [value, g.constant(bound, np.float32)])
        return cls(value, _reduce(g, "ReduceMax", value), 0)

    @classmethod
    def centered(cls, g: GraphBuilder, value: ir.Value) -> _Rows:
        half = g.constant(0.5, np.float32)
        high, low = _reduce(g, "ReduceMax", value), _reduce(g, "ReduceMin", value)
        largest = g.op("Max", [g.op("Mul", [g.op("Sub", [high, low]), half]), g.constant([TINY], np.float32)])
        step = g.op("Mul", [largest, g.constant(1 / 127, np.float32)])
        # A whole number of steps: so that 0 stays exactly 0. Most values of a row are next to it, and a rounding error
        # that all of them share would add up.
        steps = g.op("Round", [g.op("Div", [g.op("Mul", [g.op("Add", [high, low]), half]), step])])
        center = g.op("Mul", [steps, step])
        return cls(g.op("Sub", [value, center]), largest, 128, center)


def _reduce(g: GraphBuilder, kind: str, value: ir.Value) -> ir.Value:
    """Largest or smallest value of each row."""
    return g.op(kind, [value, g.constant([-1], np.int64)], {"keepdims": 1})


def _product(target: Target, x: _Quantized, layer: LinearLayer, blocks: Sequence[Rounding], mean: Float32) -> ir.Value:
    """One layer on a quantized activation.

    The bias cannot ride in the integer product: the row's maximum would multiply it.
    """
    g, matrix = target.graph, layer.weight
    rows, columns = matrix.shape
    errors = ErrorSum()
    scales: list[Float32] = []
    bias: list[Float32] = []
    sums: list[Float32] = []

    def quantized() -> Iterator[npt.NDArray[np.int8]]:
        for chunk in matrix.chunks():
            scaled = chunk * x.divisors
            chunk_scales = int8_scales(scaled)
            values = round_columns(blocks, scaled, chunk_scales[:, None], (-127, 127))
            effective: Float32 = values * chunk_scales[:, None] / x.divisors
            errors.add(chunk, effective)
            scales.append(chunk_scales)
            sums.append(values.sum(axis=1) * chunk_scales)
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
    result = g.op("Mul", [product, x.largest])
    if x.center is not None:
        total = g.vector(f"{matrix.name}.sums", (np.concatenate(sums) / divisor).astype(np.float32), "int8")
        result = g.op("Add", [result, g.op("Mul", [x.center, total])])
    corrected = (np.concatenate(bias) + (0 if layer.bias is None else layer.bias)) / divisor
    return add_bias(g, result, layer.bias_name, corrected.astype(np.float32), "int8")
