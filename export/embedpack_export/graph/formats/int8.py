"""int8: activations quantized per row while the model runs, weights per output channel, u8 x s8 products.

A row's scale depends on that row alone: a text's vector does not depend on the texts beside it, which per-tensor scales
(DynamicQuantizeLinear) cannot promise.

Calibration makes the rounding small, at no cost in the products:
* Channels with large values or far from zero are shifted and scaled before they are quantized, their weights the other
  way round (SmoothQuant, Xiao et al. 2023, arXiv 2211.10438, eq. 4, with a shift as in Outlier Suppression+, Wei et al.
  2023, arXiv 2304.09145). A norm does that itself, with other weights; a linear layer in front does it with its scales.
* How far to go is chosen for each activation by the error that tokens of the calibration show.
* Where that linear layer is in front, rows are also centered on the middle of their own range: what was taken off comes
  back as center x the sum of each output's weights. It can also make the channels in another order: large ones beside
  large ones, in blocks that have scales of their own (`embedpack_export.quantization.channel_blocks`).
* Where a norm is in front and its rows hardly differ in their largest value, all rows share a step from the calibration
  (a static scale), which still is one that no other text has a say in, and the passes that look for it fall away.
* Values with a lower bound (GELU's) use the whole range of u8 above it.
* No two weights that a CPU without VNNI adds in 16 bits overflow there: all CPUs give the same numbers.
* Weights are rounded to fit the activations' covariance (`embedpack_export.quantization.gptq`); the mean error that
  remains goes into the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack_export.arrays import Float32, Matrix, fill_columns
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.formats.blocks import block_table
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.gptq import Rounding, round_columns, roundings
from embedpack_export.quantization.integers import ErrorSum, paired_scales, within_pairs
from embedpack_export.quantization.smoothing import choose_smoothing
from embedpack_export.quantization.statistics import SiteStatistics

# Ends the name of the step that all rows of a site share.
STEP = ".step"
# Keeps an all-zero row finite: 0 / TINY is 0.
TINY = 1e-10


@dataclass(frozen=True)
class _Quantized:
    """A quantized block of an activation's channels: (value - zero) * step * largest + center of the row.

    Without `largest` (1) all rows share the step; without `center` it is 0.
    """

    channels: npt.NDArray[np.intp]
    values: ir.Value
    largest: ir.Value | None
    step: ir.Value
    zero: ir.Value
    center: ir.Value | None


@dataclass(frozen=True)
class _Input:
    """What layers read: the blocks of an activation, from which `shift` was taken before it was divided by `divisors`.

    Attributes:
        shift, divisors: float32 [k].
        roundings: of weights that read it.
        mean: of the activation as it was, float32 [k].
    """

    blocks: tuple[_Quantized, ...]
    shift: Float32
    divisors: Float32
    roundings: Sequence[Rounding]
    mean: Float32


class Int8:
    """Per-row dynamic int8 linears and a block-wise 8-bit table."""

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`. The activation is quantized once for all layers."""
        seen = context.statistics[x.site]
        read = _quantize(context.graph, x, seen, layers)
        return [_linear(context, read, layer) for layer in layers]

    def channel_layout(
        self, context: GraphContext, site: str, layers: Sequence[LinearLayer], groups: ChannelGroups | None
    ) -> ChannelLayout | None:
        """See `GraphContext.channel_layout`."""
        weights = [layer.weight for layer in layers]
        return choose_smoothing(context.statistics[site], weights, shifts=False, groups=groups).layout

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(context, table, ids, 8)


def _quantize(g: GraphBuilder, x: Activation, seen: SiteStatistics, layers: Sequence[LinearLayer]) -> _Input:
    shift, divisors = np.zeros_like(seen.mean), np.ones_like(seen.mean)
    channels = np.arange(len(seen.mean))
    if x.rescale is not None:
        chosen = choose_smoothing(seen, [layer.weight for layer in layers], shifts=True)
        shift, divisors = chosen.shift, chosen.layout.divisors
        value = x.rescale(shift, divisors, "int8")
        if chosen.max_abs is None:
            blocks = [_block(g, channels, _Rows.symmetric(g, value))]
        else:
            blocks = [_static_block(g, channels, x.site, value, chosen.max_abs)]
    elif x.layout is not None:
        divisors = x.layout.divisors
        parts = zip(x.layout.blocks, _split(g, x.value, x.layout.blocks), strict=True)
        blocks = [_block(g, channels, _Rows.centered(g, part)) for channels, part in parts]
    elif x.lower_bound is not None:
        shift = np.full_like(seen.mean, x.lower_bound)
        blocks = [_block(g, channels, _Rows.above(g, x.value, x.lower_bound))]
    else:
        blocks = [_block(g, channels, _Rows.symmetric(g, x.value))]
    return _Input(tuple(blocks), shift, divisors, roundings(seen.covariance, divisors), seen.mean)


def _split(g: GraphBuilder, value: ir.Value, blocks: Sequence[npt.NDArray[np.intp]]) -> Sequence[ir.Value]:
    if len(blocks) == 1:
        return [value]
    sizes = g.constant([len(block) for block in blocks], np.int64)
    return g.ops("Split", [value, sizes], {"axis": -1}, outputs=len(blocks))


def _block(g: GraphBuilder, channels: npt.NDArray[np.intp], rows: _Rows) -> _Quantized:
    largest = g.op("Max", [rows.largest, g.constant([TINY], np.float32)])
    steps = 255 if rows.zero == 0 else 127
    step, zero = g.constant(1 / steps, np.float32), g.constant(rows.zero, np.uint8)
    values = g.op("QuantizeLinear", [g.op("Div", [rows.value, largest]), step, zero])
    return _Quantized(channels, values, largest, step, zero, rows.center)


def _static_block(
    g: GraphBuilder, channels: npt.NDArray[np.intp], site: str, value: ir.Value, max_abs: np.float32
) -> _Quantized:
    step = g.vector(f"{site}{STEP}", np.array([max_abs / 127], np.float32), "int8")
    zero = g.constant(128, np.uint8)
    return _Quantized(channels, g.op("QuantizeLinear", [value, step, zero]), None, step, zero, None)


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


@dataclass(frozen=True)
class _Rounded:
    """A weight in integers.

    Attributes:
        values: int8 [in, out].
        scales: of each output for each block of inputs, float32 [blocks, out].
        bias: what the shift took out, and the error of the mean activation, float32 [out].
    """

    values: npt.NDArray[np.int8]
    scales: Float32
    bias: Float32


def _round(context: GraphContext, x: _Input, matrix: Matrix) -> _Rounded:
    rows, columns = matrix.shape
    errors = ErrorSum()
    scales: list[Float32] = []
    bias: list[Float32] = []

    def quantized() -> Iterator[npt.NDArray[np.int8]]:
        for chunk in matrix.chunks():
            scaled = chunk * x.divisors
            chunk_scales = np.empty_like(scaled)
            for block in x.blocks:
                chunk_scales[:, block.channels] = paired_scales(scaled[:, block.channels])[:, None]
            values = round_columns(x.roundings, scaled, chunk_scales, -127, 127)
            for block in x.blocks:
                values[:, block.channels] = within_pairs(values[:, block.channels])
            effective: Float32 = values * chunk_scales / x.divisors
            errors.add(chunk, effective)
            scales.append(chunk_scales[:, [block.channels[0] for block in x.blocks]].T)
            bias.append((effective @ x.shift + (chunk - effective) @ x.mean).astype(np.float32))
            yield values.astype(np.int8)

    transposed = fill_columns(np.empty((columns, rows), np.int8), quantized())
    context.report(matrix.name, errors.relative)
    return _Rounded(transposed, np.concatenate(scales, axis=1), np.concatenate(bias))


def _linear(context: GraphContext, x: _Input, layer: LinearLayer) -> ir.Value:
    """One layer on a quantized activation: the sum of the products of its blocks."""
    g, rounded = context.graph, _round(context, x, layer.weight)
    divisor = np.float32(1) if layer.divisor is None else layer.divisor
    order = slice(None) if layer.order is None else layer.order
    bias = ((rounded.bias + (0 if layer.bias is None else layer.bias)) / divisor)[order]
    bias_value = g.vector(layer.bias_name, bias.astype(np.float32), "int8")
    total: ir.Value | None = None
    for index, block in enumerate(x.blocks):
        name = layer.weight.name if len(x.blocks) == 1 else f"{layer.weight.name}.{index}"
        weights = np.ascontiguousarray(rounded.values[block.channels][:, order])
        scales = (rounded.scales[index] / divisor)[order].astype(np.float32)
        if block.largest is None:
            return _integers(g, block, name, (weights, scales), bias_value)
        product = _product(g, block, name, (weights, scales))
        total = product if total is None else g.op("Add", [total, product])
    assert total is not None
    return g.op("Add", [total, bias_value])


def _product(g: GraphBuilder, x: _Quantized, name: str, integers: tuple[npt.NDArray[np.int8], Float32]) -> ir.Value:
    """Of a block [..., in] whose rows have steps of their own, and weights; a bias in it would be multiplied too."""
    result = g.op("Mul", [_integers(g, x, name, integers, None), x.largest])
    if x.center is None:
        return result
    weights, scales = integers
    sums = g.vector(f"{name}.sums", weights.sum(axis=0, dtype=np.float32) * scales, "int8")
    return g.op("Add", [result, g.op("Mul", [x.center, sums])])


def _integers(
    g: GraphBuilder,
    x: _Quantized,
    name: str,
    integers: tuple[npt.NDArray[np.int8], Float32],
    bias: ir.Value | None,
) -> ir.Value:
    """Sum of (value - zero) * step * weight, where weights [in, out] are integers * scales [out]; and the bias."""
    weights, scales = integers
    inputs = [
        x.values,
        g.weight(f"{name}.int8", "int8", [weights], np.int8, weights.shape),
        x.step,
        g.vector(f"{name}.scales", scales, "int8"),
        x.zero,
    ]
    return g.op("MatMulIntegerToFloat", inputs if bias is None else [*inputs, None, bias], domain=CONTRIB)
