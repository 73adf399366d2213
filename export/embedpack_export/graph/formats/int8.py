"""int8: activations quantized row by row at run time, weights per output channel, u8 x s8 products.

The scale of a row depends on that row alone, so a vector does not depend on the other inputs of its batch. A scale for
the whole tensor (DynamicQuantizeLinear) would make it depend on them.

Calibration keeps the rounding error small, at no cost in the products:
* Smoothing: channels are shifted and divided before they are quantized, and weights multiplied (SmoothQuant, Xiao et
  al. 2022, arXiv 2211.10438, eq. 4, with a shift as in Outlier Suppression+, Wei et al. 2023, arXiv 2304.09145). A norm
  before the layer does both with other weights, a linear layer before it with other scales. The strength is chosen for
  each activation by the expected error (`embedpack_export.quantization.smoothing`).
  In a decoder the first tokens of texts count more there (`embedpack_export.quantization.statistics`).
* After a linear layer, each row is centered at its mid-range; the offset is restored as center x column sum of the
  weights. The channels can also be reordered into blocks of similar size with scales of their own
  (`embedpack_export.quantization.channel_blocks`).
* After a norm whose rows have similar largest values, all rows share a static scale from the calibration, which saves
  the passes that compute each row's. It does not depend on other inputs either. First tokens of bidirectional models
  have no mean error there, and a channel that is massive at them is repeated in the product.
* Values of attention are shifted and divided for the projection of their means: weights of attention sum to 1.
* The residual behind a norm is read from what the products read, since another norm would take longer.
* Values with a lower bound (GELU's) have one zero point for all rows, so that most of the range of u8 is above 0, and
  nothing is subtracted (`embedpack_export.quantization.zero_point`).
* No two weights that a CPU without VNNI adds in 16 bits can overflow, so all CPUs compute the same numbers
  (`embedpack_export.quantization.integers`).
* Weights are rounded by GPTQ for the activations' covariance (`embedpack_export.quantization.gptq`); the remaining
  mean error goes into the bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, fill_columns
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearFormat, LinearLayer, Rescaled, add_all
from embedpack_export.graph.formats.blocks import block_table
from embedpack_export.graph.formats.int8_branches import Int8BranchInput, QuantizedBlock
from embedpack_export.quantization.channel_layout import ChannelGroups
from embedpack_export.quantization.gptq import Rounding, round_columns, roundings
from embedpack_export.quantization.integers import ErrorSum, paired_scales, within_pairs
from embedpack_export.quantization.smoothing import RepeatedChannel, SmoothingChoice, choose_smoothing
from embedpack_export.quantization.zero_point import BoundedRange, bounded_range

# Suffix of the name of a static scale.
STATIC_SCALE = ".scale"
# Smallest scale of a row: keeps 0 / 0 out of rows of zeros.
MIN_SCALE = 1e-12


@dataclass(frozen=True)
class _Centers:
    """Center of each row in each block."""

    value: ir.Value  # [..., blocks]
    and_one: ir.Value  # [..., blocks + 1]: 1 is the factor of the bias, which then has no pass of its own


@dataclass(frozen=True)
class _Input:
    """A quantized activation: the blocks of (x - shift) / divisors."""

    blocks: tuple[QuantizedBlock, ...]  # blocks of all k channels
    centers: _Centers | None  # None: all are 0
    # Shift and divisor of each channel, float32 [k].
    shift: Float32
    divisors: Float32
    roundings: Sequence[Rounding]  # GPTQ for weights that read it
    mean: Float32  # mean of x, float32 [k]


class Int8(LinearFormat):
    """Linear layers in int8 with dynamic scales for each row, and a block-wise 8-bit table."""

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`. The activation is quantized once for all layers."""
        quantized = _quantize(context, x, layers)
        centers = None if quantized.centers is None else quantized.centers.value
        x.branch_input = Int8BranchInput(quantized.blocks, centers, quantized.shift, quantized.divisors)
        return [_linear(context, quantized, layer) for layer in layers]

    def smoothing(
        self,
        context: GraphContext,
        site: str,
        layers: Sequence[LinearLayer],
        *,
        shifts: bool = False,
        groups: ChannelGroups | None = None,
    ) -> SmoothingChoice | None:
        """See `GraphContext.smoothing`."""
        weights = [layer.weight for layer in layers]
        return choose_smoothing(context.statistics[site], weights, shifts=shifts, groups=groups)

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        return block_table(context, table, ids, 8)


def _quantize(context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> _Input:
    g, statistics = context.graph, context.statistics[x.site]
    mean = statistics.mean
    shift, divisors, channels = np.zeros_like(mean), np.ones_like(mean), np.arange(len(mean))
    centers: _Centers | None = None
    if x.rescale is not None:
        choice = choose_smoothing(statistics, [layer.weight for layer in layers], shifts=True)
        shift, divisors = choice.shift, choice.layout.divisors
        value = x.rescale(shift, divisors, "int8")
        x.rescaled = Rescaled(value, shift, divisors)
        blocks = [_whole(context, x.site, value, choice)]
    elif x.smoothing is not None:
        shift, divisors = x.smoothing.shift, x.smoothing.layout.divisors
        blocks = [_whole(context, x.site, x.value, x.smoothing)]
    elif x.layout is not None:
        divisors = x.layout.divisors
        layout = x.layout.cut(len(x.values))
        rows, centers = _centered(g, list(_divided(g, x.values, layout.blocks)))
        blocks = [_block(g, channels, each) for channels, each in zip(layout.blocks, rows, strict=True)]
    elif x.lower_bound is not None:
        bounded = bounded_range(statistics.sample, x.lower_bound)
        divided = zip(np.split(channels, len(x.values)), x.values, strict=True)
        blocks = [_block(g, part, _UnquantizedRows.bounded(g, value, bounded)) for part, value in divided]
    else:
        blocks = [_block(g, channels, _UnquantizedRows.symmetric(g, x.value))]
    return _Input(tuple(blocks), centers, shift, divisors, roundings(statistics.covariance, divisors), mean)


def _whole(context: GraphContext, site: str, value: ir.Value, choice: SmoothingChoice) -> QuantizedBlock:
    """All channels of a value that is shifted and divided as chosen."""
    g, channels = context.graph, np.arange(len(choice.shift))
    if choice.max_abs is None:
        return _block(g, channels, _UnquantizedRows.symmetric(g, value))
    block = _static_block(g, channels, site, value, choice.max_abs)
    return _with_repeated(context, block, choice.repeated) if choice.repeated else block


def _with_repeated(context: GraphContext, block: QuantizedBlock, channels: Sequence[RepeatedChannel]) -> QuantizedBlock:
    """Append values of first tokens that the scale of a block does not cover, in repeated channels.

    They are pairs of opposite signs, as are their weights: two weights of one sign must not sum to more than
    `MAX_PAIR_SUM`.
    """
    g = context.graph
    pairs = [(channel.channel, channel.steps) for channel in channels for _ in range(channel.pairs)]
    # 0 steps of any channel fill up: products of an odd number of pairs are slow.
    pairs += [(0, 0)] * (len(pairs) % 2)
    steps = [128 + sign * steps for _, steps in pairs for sign in (1, -1)]
    table = g.constant([[128] * len(steps), steps], np.uint8)
    again = g.op("Gather", [table, context.once("first_tokens", lambda: _first_tokens(context))], {"axis": 0})
    values = g.op("Concat", [block.values, again], {"axis": -1})
    return replace(block, values=values, repeated=tuple(channel for channel, _ in pairs))


def _first_tokens(context: GraphContext) -> ir.Value:
    """Append 1 for the first token of each text, 0 for its others; int64 [batch, sequence]."""
    g, mask = context.graph, context.inputs[ATTENTION_MASK]
    places = g.op("CumSum", [mask, g.constant(1, np.int64)])
    return g.op("Cast", [g.op("Greater", [g.constant(2, np.int64), places])], {"to": int(ir.DataType.INT64)})


def _divided(g: GraphBuilder, parts: Sequence[ir.Value], blocks: Sequence[npt.NDArray[np.intp]]) -> Iterator[ir.Value]:
    """Append the values of blocks, each of which lies within one of equal parts."""
    width, waiting = sum(map(len, blocks)) // len(parts), list(blocks)
    for part in parts:
        count = 1 + [int(end) for end in np.cumsum([len(block) for block in waiting])].index(width)
        yield from _split(g, part, waiting[:count])
        waiting = waiting[count:]


def _split(g: GraphBuilder, value: ir.Value, blocks: Sequence[npt.NDArray[np.intp]]) -> Sequence[ir.Value]:
    if len(blocks) == 1:
        return [value]
    sizes = g.constant([len(block) for block in blocks], np.int64)
    return g.ops("Split", [value, sizes], {"axis": -1}, outputs=len(blocks))


def _block(g: GraphBuilder, channels: npt.NDArray[np.intp], rows: _UnquantizedRows) -> QuantizedBlock:
    zero, one = g.constant(rows.zero, np.uint8), g.constant(1, np.float32)
    if rows.zeros is None:
        # OpenVINO loads this form; the other one has no pass of its own for the product. A product is faster than a
        # division, which onnxruntime makes of it if the numerator is 1.
        half = g.constant(0.5, np.float32)
        inverse = g.op("Div", [half, rows.scale])
        values = g.op("QuantizeLinear", [g.op("Mul", [rows.value, inverse]), half, zero])
    else:
        # A scale and a zero point for each row are those of blocks that are as long as the row.
        attributes = {"axis": -1, "block_size": len(channels)}
        values = g.op("QuantizeLinear", [rows.value, rows.scale, rows.zeros], attributes)
    return QuantizedBlock(channels, values, rows.scale, one, zero)


def _static_block(
    g: GraphBuilder, channels: npt.NDArray[np.intp], site: str, value: ir.Value, max_abs: np.float32
) -> QuantizedBlock:
    scale = g.vector(f"{site}{STATIC_SCALE}", np.array([max_abs / 127], np.float32), "int8")
    zero = g.constant(128, np.uint8)
    return QuantizedBlock(channels, g.op("QuantizeLinear", [value, scale, zero]), None, scale, zero)


@dataclass(frozen=True)
class _UnquantizedRows:
    """Rows before quantization."""

    value: ir.Value
    scale: ir.Value  # scale of each row
    zero: int  # u8 value that stands for the center of a row
    zeros: ir.Value | None = None  # u8 value that stands for 0 in each row; None: `zero`

    @classmethod
    def symmetric(cls, g: GraphBuilder, value: ir.Value) -> _UnquantizedRows:
        return cls(value, _row_scale(g, _reduce(g, "ReduceMax", g.op("Abs", [value])), 127), 128)

    @classmethod
    def bounded(cls, g: GraphBuilder, value: ir.Value, bounded: BoundedRange) -> _UnquantizedRows:
        scale = _row_scale(g, _reduce(g, "ReduceMax", value), 255 - bounded.zero, bounded.least)
        return cls(value, scale, bounded.zero)


def _centered(g: GraphBuilder, parts: Sequence[ir.Value]) -> tuple[list[_UnquantizedRows], _Centers]:
    """Append the scales and centers of the rows of blocks of channels: those of all blocks together, as they are small.

    The range of a row, with 0 in it, is quantized; the center is its middle, a multiple of its scale. 0 is exact: most
    values of a row are close to 0, and a rounding error common to all of them would add up.
    """
    half, nothing = g.constant(0.5, np.float32), g.constant(0, np.float32)
    high = g.op("Max", [_side_by_side(g, [_reduce(g, "ReduceMax", part) for part in parts]), nothing])
    low = g.op("Clip", [_side_by_side(g, [_reduce(g, "ReduceMin", part) for part in parts]), None, nothing])
    scale = _row_scale(g, g.op("Mul", [g.op("Sub", [high, low]), half]), 127)
    steps = g.op("Round", [g.op("Div", [g.op("Mul", [g.op("Add", [high, low]), half]), scale])])
    zeros = g.op("Cast", [g.op("Sub", [g.constant(128, np.float32), steps])], {"to": int(ir.DataType.UINT8)})
    of_blocks = zip(parts, *(_split_equally(g, value, len(parts)) for value in (scale, zeros)), strict=True)
    rows = [_UnquantizedRows(part, its_scale, 128, its_zeros) for part, its_scale, its_zeros in of_blocks]
    centers, one = g.op("Mul", [steps, scale]), g.op("Div", [rows[0].scale, rows[0].scale])
    return rows, _Centers(centers, g.op("Concat", [centers, one], {"axis": -1}))


def _side_by_side(g: GraphBuilder, values: Sequence[ir.Value]) -> ir.Value:
    return values[0] if len(values) == 1 else g.op("Concat", values, {"axis": -1})


def _split_equally(g: GraphBuilder, value: ir.Value, count: int) -> Sequence[ir.Value]:
    return [value] if count == 1 else g.ops("Split", [value], {"axis": -1, "num_outputs": count}, outputs=count)


def _row_scale(g: GraphBuilder, largest: ir.Value, levels: int, least: float = 0.0) -> ir.Value:
    """Append the scale of rows with these largest sizes, taken as `least` where they are smaller."""
    scale = g.op("Mul", [largest, g.constant(1 / levels, np.float32)])
    return g.op("Max", [scale, g.constant([max(least / levels, MIN_SCALE)], np.float32)])


def _reduce(g: GraphBuilder, kind: str, value: ir.Value) -> ir.Value:
    """Append the maximum or minimum of each row."""
    return g.op(kind, [value, g.constant([-1], np.int64)], {"keepdims": 1})


@dataclass(frozen=True)
class _Int8Matrix:
    """A weight in integers."""

    values: npt.NDArray[np.int8]  # integers, int8 [in, out]
    scales: Float32  # scale of each output for each block of inputs, float32 [blocks, out]
    bias: Float32  # product of the weights and the shift, plus the mean error from rounding, float32 [out]

    def outputs(self, index: npt.NDArray[np.intp]) -> _Int8Matrix:
        """The matrix of the outputs at `index`, in this order."""
        return _Int8Matrix(self.values[:, index], self.scales[:, index], self.bias[index])


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


def _linear(context: GraphContext, x: _Input, layer: LinearLayer) -> list[ir.Value]:
    """Append one layer on a quantized activation; returns the parts of its output."""
    rounded = _round(context, x, layer.weight)
    divisor = np.float32(1) if layer.divisor is None else layer.divisor
    order = np.arange(layer.weight.shape[0]) if layer.order is None else layer.order
    bias = (rounded.bias + (0 if layer.bias is None else layer.bias)) / divisor
    written = _Int8Matrix(rounded.values, rounded.scales / divisor, bias.astype(np.float32))
    if len(layer.parts) == 1:
        return [_product(context.graph, x, layer.module, written.outputs(order))]
    return [
        _product(context.graph, x, f"{layer.module}.{part.start}", written.outputs(order[part])) for part in layer.parts
    ]


def _product(g: GraphBuilder, x: _Input, name: str, matrix: _Int8Matrix) -> ir.Value:
    """Append the outputs of a matrix: the sum of the products of the blocks of x, plus the bias."""
    weights = [
        _BlockWeights(
            f"{name}.weight" if len(x.blocks) == 1 else f"{name}.weight.{index}",
            block.rows(matrix.values),
            matrix.scales[index],
        )
        for index, block in enumerate(x.blocks)
    ]
    if x.blocks[0].row_scale is None:
        return _integer_product(g, x.blocks[0], weights[0], g.vector(f"{name}.bias", matrix.bias, "int8"))
    products = []
    for block, written in zip(x.blocks, weights, strict=True):
        # Without bias, which would be scaled too.
        products.append(g.op("Mul", [_integer_product(g, block, written, None), block.row_scale]))
    if x.centers is None:
        return g.op("Add", [add_all(g, products), g.vector(f"{name}.bias", matrix.bias, "int8")])
    products.append(_center_product(g, name, x.centers, weights, matrix.bias))
    return add_all(g, products)


def _center_product(
    g: GraphBuilder, name: str, centers: _Centers, weights: Sequence[_BlockWeights], bias: Float32
) -> ir.Value:
    """Append the product of the centers of all blocks and the sums of their weights, plus the bias."""
    sums = [block.integers.sum(axis=0, dtype=np.float32) * block.scales for block in weights]
    rows = np.stack([*sums, bias])
    return g.op("MatMul", [centers.and_one, g.weight(f"{name}.weight.sums", "int8", [rows], np.float32, rows.shape)])


def _integer_product(g: GraphBuilder, x: QuantizedBlock, weights: _BlockWeights, bias: ir.Value | None) -> ir.Value:
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
