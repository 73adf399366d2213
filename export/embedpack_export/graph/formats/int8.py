"""int8: activations quantized row by row at run time, weights per output channel, u8 x s8 products.

The scale of a row depends on that row alone, so a vector does not depend on the other inputs of its batch. A scale for
the whole tensor (DynamicQuantizeLinear) would make it depend on them.

Calibration keeps the rounding error small, at no cost in the products:
* Smoothing: channels are shifted and divided before they are quantized, and weights multiplied (SmoothQuant, Xiao et
  al. 2022, arXiv 2211.10438, eq. 4, with a shift as in Outlier Suppression+, Wei et al. 2023, arXiv 2304.09145). A norm
  before the layer does both with other weights, a linear layer before it with other scales. The strength is chosen for
  each activation by the expected error (`embedpack_export.quantization.smoothing`).
* After a linear layer, each row is centered at its mid-range; the offset is restored as center x column sum of the
  weights. The channels can also be reordered into blocks of similar size with scales of their own
  (`embedpack_export.quantization.channel_blocks`).
* After a norm whose rows have similar largest values, all rows share a static scale from the calibration, which saves
  the passes that compute each row's. It does not depend on other inputs either.
* Values with a lower bound (GELU's) have one zero point for all rows, so that most of the range of u8 is above 0, and
  nothing is subtracted (`embedpack_export.quantization.zero_point`).
* No two weights that a CPU without VNNI adds in 16 bits can overflow, so all CPUs compute the same numbers
  (`embedpack_export.quantization.integers`).
* Weights are rounded by GPTQ for the activations' covariance (`embedpack_export.quantization.gptq`); the remaining
  mean error goes into the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, fill_columns
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.formats.blocks import block_table
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.gptq import Rounding, round_columns, roundings
from embedpack_export.quantization.integers import ErrorSum, paired_scales, within_pairs
from embedpack_export.quantization.smoothing import choose_smoothing
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.quantization.zero_point import BoundedRange, bounded_range

# Suffix of the name of a static scale.
STATIC_SCALE = ".scale"
# Smallest divisor of a row: keeps 0 / 0 out of rows of zeros.
MIN_DIVISOR = 1e-10


@dataclass(frozen=True)
class _QuantizedBlock:
    """A quantized block of an activation's channels; the values stand for (value - zero) * scale * largest + center."""

    channels: npt.NDArray[np.intp]
    values: ir.Value  # u8 values
    largest: ir.Value | None  # largest size in each row; None: 1, the scale is static
    scale: ir.Value  # scale of the values relative to `largest`
    zero: ir.Value  # value that stands for 0
    center: ir.Value | None  # what was subtracted from each row; None: 0


@dataclass(frozen=True)
class _Input:
    """A quantized activation: the blocks of (x - shift) / divisors."""

    blocks: tuple[_QuantizedBlock, ...]  # blocks of all k channels
    # Shift and divisor of each channel, float32 [k].
    shift: Float32
    divisors: Float32
    roundings: Sequence[Rounding]  # GPTQ for weights that read it
    mean: Float32  # mean of x, float32 [k]


class Int8:
    """Linear layers in int8 with dynamic scales for each row, and a block-wise 8-bit table."""

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`. The activation is quantized once for all layers."""
        quantized = _quantize(context.graph, x, context.statistics[x.site], layers)
        return [_linear(context, quantized, layer) for layer in layers]

    def channel_layout(
        self, context: GraphContext, site: str, layers: Sequence[LinearLayer], groups: ChannelGroups | None
    ) -> ChannelLayout | None:
        """See `GraphContext.channel_layout`."""
        weights = [layer.weight for layer in layers]
        return choose_smoothing(context.statistics[site], weights, shifts=False, groups=groups).layout

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(context, table, ids, 8)


def _quantize(g: GraphBuilder, x: Activation, statistics: SiteStatistics, layers: Sequence[LinearLayer]) -> _Input:
    mean = statistics.mean
    shift, divisors, channels = np.zeros_like(mean), np.ones_like(mean), np.arange(len(mean))
    if x.rescale is not None:
        choice = choose_smoothing(statistics, [layer.weight for layer in layers], shifts=True)
        shift, divisors = choice.shift, choice.layout.divisors
        value = x.rescale(shift, divisors, "int8")
        if choice.max_abs is None:
            blocks = [_block(g, channels, _UnquantizedRows.symmetric(g, value))]
        else:
            blocks = [_static_block(g, channels, x.site, value, choice.max_abs)]
    elif x.layout is not None:
        divisors = x.layout.divisors
        parts = zip(x.layout.blocks, _split(g, x.value, x.layout.blocks), strict=True)
        blocks = [_block(g, channels, _UnquantizedRows.centered(g, part)) for channels, part in parts]
    elif x.lower_bound is not None:
        bounded = bounded_range(statistics.sample, x.lower_bound)
        blocks = [_block(g, channels, _UnquantizedRows.bounded(g, x.value, bounded))]
    else:
        blocks = [_block(g, channels, _UnquantizedRows.symmetric(g, x.value))]
    return _Input(tuple(blocks), shift, divisors, roundings(statistics.covariance, divisors), mean)


def _split(g: GraphBuilder, value: ir.Value, blocks: Sequence[npt.NDArray[np.intp]]) -> Sequence[ir.Value]:
    if len(blocks) == 1:
        return [value]
    sizes = g.constant([len(block) for block in blocks], np.int64)
    return g.ops("Split", [value, sizes], {"axis": -1}, outputs=len(blocks))


def _block(g: GraphBuilder, channels: npt.NDArray[np.intp], rows: _UnquantizedRows) -> _QuantizedBlock:
    largest = g.op("Max", [rows.largest, g.constant([max(rows.least, MIN_DIVISOR)], np.float32)])
    scale, zero = g.constant(1 / (255 - rows.zero), np.float32), g.constant(rows.zero, np.uint8)
    values = g.op("QuantizeLinear", [g.op("Div", [rows.value, largest]), scale, zero])
    return _QuantizedBlock(channels, values, largest, scale, zero, rows.center)


def _static_block(
    g: GraphBuilder, channels: npt.NDArray[np.intp], site: str, value: ir.Value, max_abs: np.float32
) -> _QuantizedBlock:
    scale = g.vector(f"{site}{STATIC_SCALE}", np.array([max_abs / 127], np.float32), "int8")
    zero = g.constant(128, np.uint8)
    return _QuantizedBlock(channels, g.op("QuantizeLinear", [value, scale, zero]), None, scale, zero, None)


@dataclass(frozen=True)
class _UnquantizedRows:
    """Rows before quantization."""

    value: ir.Value  # the rows, from which `center` was subtracted
    largest: ir.Value  # largest size in each row, by which it is divided
    zero: int = 128  # u8 value that stands for 0
    center: ir.Value | None = None  # center of each row; None: 0
    least: float = 0.0  # smallest divisor of a row

    @classmethod
    def symmetric(cls, g: GraphBuilder, value: ir.Value) -> _UnquantizedRows:
        return cls(value, _reduce(g, "ReduceMax", g.op("Abs", [value])))

    @classmethod
    def bounded(cls, g: GraphBuilder, value: ir.Value, bounded: BoundedRange) -> _UnquantizedRows:
        return cls(value, _reduce(g, "ReduceMax", value), bounded.zero, least=bounded.least)

    @classmethod
    def centered(cls, g: GraphBuilder, value: ir.Value) -> _UnquantizedRows:
        half = g.constant(0.5, np.float32)
        high, low = _reduce(g, "ReduceMax", value), _reduce(g, "ReduceMin", value)
        largest = g.op("Max", [g.op("Mul", [g.op("Sub", [high, low]), half]), g.constant([MIN_DIVISOR], np.float32)])
        scale = g.op("Mul", [largest, g.constant(1 / 127, np.float32)])
        # The center is a multiple of the scale, so that 0 is exact: most values of a row are close to 0, and a rounding
        # error common to all of them would add up.
        multiple = g.op("Round", [g.op("Div", [g.op("Mul", [g.op("Add", [high, low]), half]), scale])])
        center = g.op("Mul", [multiple, scale])
        return cls(g.op("Sub", [value, center]), largest, center=center)


def _reduce(g: GraphBuilder, kind: str, value: ir.Value) -> ir.Value:
    """Append the maximum or minimum of each row."""
    return g.op(kind, [value, g.constant([-1], np.int64)], {"keepdims": 1})


@dataclass(frozen=True)
class _Int8Matrix:
    """A weight in integers."""

    values: npt.NDArray[np.int8]  # integers, int8 [in, out]
    scales: Float32  # scale of each output for each block of inputs, float32 [blocks, out]
    bias: Float32  # product of the weights and the shift, plus the mean error from rounding, float32 [out]


def _round(context: GraphContext, x: _Input, matrix: Matrix) -> _Int8Matrix:
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
            rounded: Float32 = values * chunk_scales / x.divisors
            errors.add(chunk, rounded)
            scales.append(chunk_scales[:, [block.channels[0] for block in x.blocks]].T)
            bias.append((rounded @ x.shift + (chunk - rounded) @ x.mean).astype(np.float32))
            yield values.astype(np.int8)

    transposed = fill_columns(np.empty((columns, rows), np.int8), quantized())
    context.log_error(matrix.name, errors.relative)
    return _Int8Matrix(transposed, np.concatenate(scales, axis=1), np.concatenate(bias))


@dataclass(frozen=True)
class _BlockWeights:
    """Weights of a layer for one block of its input: `integers` int8 [in, out] * `scales` float32 [out]."""

    name: str
    integers: npt.NDArray[np.int8]
    scales: Float32


def _linear(context: GraphContext, x: _Input, layer: LinearLayer) -> ir.Value:
    """Append one layer on a quantized activation: the sum of the products of its blocks."""
    g, rounded = context.graph, _round(context, x, layer.weight)
    divisor = np.float32(1) if layer.divisor is None else layer.divisor
    order = slice(None) if layer.order is None else layer.order
    bias = ((rounded.bias + (0 if layer.bias is None else layer.bias)) / divisor)[order]
    bias_value = g.vector(layer.bias_name, bias.astype(np.float32), "int8")
    total: ir.Value | None = None
    for index, block in enumerate(x.blocks):
        weights = _BlockWeights(
            layer.weight.name if len(x.blocks) == 1 else f"{layer.weight.name}.{index}",
            np.ascontiguousarray(rounded.values[block.channels][:, order]),
            (rounded.scales[index] / divisor)[order].astype(np.float32),
        )
        if block.largest is None:
            return _integer_product(g, block, weights, bias_value)
        product = _row_product(g, block, block.largest, weights)
        total = product if total is None else g.op("Add", [total, product])
    assert total is not None
    return g.op("Add", [total, bias_value])


def _row_product(g: GraphBuilder, x: _QuantizedBlock, largest: ir.Value, weights: _BlockWeights) -> ir.Value:
    """Append the product of a block with a scale for each row, and weights; without bias, which would be scaled too."""
    product = g.op("Mul", [_integer_product(g, x, weights, None), largest])
    if x.center is None:
        return product
    sums = weights.integers.sum(axis=0, dtype=np.float32) * weights.scales
    return g.op("Add", [product, g.op("Mul", [x.center, g.vector(f"{weights.name}.sums", sums, "int8")])])


def _integer_product(g: GraphBuilder, x: _QuantizedBlock, weights: _BlockWeights, bias: ir.Value | None) -> ir.Value:
    """Append the sum of (value - zero) * scale * weight over the channels of a block, plus the bias."""
    integers = weights.integers
    inputs = [
        x.values,
        g.weight(f"{weights.name}.int8", "int8", [integers], np.int8, integers.shape),
        x.scale,
        g.vector(f"{weights.name}.scales", weights.scales, "int8"),
        x.zero,
    ]
    return g.op("MatMulIntegerToFloat", inputs if bias is None else [*inputs, None, bias], domain=CONTRIB)
