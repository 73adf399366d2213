"""Attention of tokens to those within a distance, on both sides, with memory that grows with the length alone.

Long texts are cut into blocks of queries; each block attends to its own tokens and those next to it. Short texts are
one block without margins, so that a block is never longer than the text. In both cases a mask leaves out keys that are
too far away, padding, and places beyond the ends of a text. All sizes are computed in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import INPUT_IDS, LONG_TEXT
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.towers.encoder_shape import EncoderPart
from embedpack_export.graph.towers.padding import FLOAT, MASKED, padded_tokens

INT64 = int(ir.DataType.INT64)
# Queries of a block if the distance is shorter.
MIN_WIDTH = 32


@dataclass(frozen=True)
class _Blocks:
    """Sizes of the blocks of a batch, int64 scalars of the graph."""

    last: ir.Value  # last column of the batch
    width: ir.Value  # number of queries of a block
    margin: ir.Value  # number of keys on each side of them
    queries: ir.Value  # number of queries of all blocks


@dataclass(frozen=True)
class _Layout:
    """Tokens of the blocks, and the shapes and the mask of their attention.

    Attributes:
        queries: row of each query for each group of heads, int64 [queries].
        keys: row of each key for each group of heads, int64 [blocks, span].
        query_shape: int64 [-1, width, channels of the queries of a group].
        key_shape: int64 [-1, span, channels of the keys of a group].
        mask: additive mask, float32 [batch x blocks, 1, width, span].
    """

    queries: Sequence[ir.Value]
    keys: Sequence[ir.Value]
    query_shape: ir.Value
    key_shape: ir.Value
    mask: ir.Value


def local_attention(part: EncoderPart, distance: int, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
    """Append attention to tokens up to `distance` away; float32 [batch, sequence, hidden]."""
    g, shape = part.graph, part.shape
    layout = part.context.once(f"local.{distance}", lambda: _layout(part, distance))
    rows = [_by_group(part, x, heads) for x, heads in zip((q, k, v), shape.attention_heads, strict=True)]
    groups = [_group(part, layout, index, rows) for index in range(shape.head_groups)]
    mixed = groups[0] if len(groups) == 1 else g.op("Concat", groups, {"axis": 2})
    ids = part.context.inputs[INPUT_IDS]
    batch, end = (g.op("Shape", [ids], {"start": axis, "end": axis + 1}) for axis in (0, 1))
    texts = g.op("Concat", [batch, g.constant([-1, shape.hidden], np.int64)], {"axis": 0})
    padded = g.op("Reshape", [mixed, texts])
    return g.op("Slice", [padded, g.constant([0], np.int64), end, g.constant([1], np.int64)])


def _by_group(part: EncoderPart, x: ir.Value, heads: int) -> ir.Value:
    """Append a view of x with a row for each token and group of heads; float32 [batch, sequence x groups, -1]."""
    g, channels = part.graph, heads * part.shape.head_size // part.shape.head_groups
    return g.op("Reshape", [x, g.constant([0, -1, channels], np.int64)])


def _group(part: EncoderPart, layout: _Layout, index: int, rows: Sequence[ir.Value]) -> ir.Value:
    """Append the attention of a group of heads; float32 [batch x blocks, width, channels]."""
    g, shape = part.graph, part.shape
    places = [layout.queries[index], layout.keys[index], layout.keys[index]]
    shapes = [layout.query_shape, layout.key_shape, layout.key_shape]
    inputs = [
        g.op("Reshape", [g.op("Gather", [x, place], {"axis": 1}), size])
        for x, place, size in zip(rows, places, shapes, strict=True)
    ]
    groups = shape.head_groups
    heads = {"q_num_heads": shape.heads // groups, "kv_num_heads": shape.key_heads // groups}
    return g.op("Attention", [*inputs, layout.mask], heads)


def _of_groups(part: EncoderPart, tokens: ir.Value) -> list[ir.Value]:
    """Append the rows of each group of heads for tokens."""
    g, groups = part.graph, part.shape.head_groups
    first = g.op("Mul", [tokens, _number(g, groups)])
    return [g.op("Add", [first, _number(g, index)]) for index in range(groups)]


def _layout(part: EncoderPart, distance: int) -> _Layout:
    g, shape, blocks = part.graph, part.shape, _blocks(part, distance)
    zero, one = _number(g, 0), _number(g, 1)
    span = g.op("Add", [blocks.width, g.op("Mul", [blocks.margin, _number(g, 2)])])
    queries = g.op("Range", [zero, blocks.queries, one])
    first = g.op(
        "Range", [g.op("Sub", [zero, blocks.margin]), g.op("Sub", [blocks.queries, blocks.margin]), blocks.width]
    )
    steps = g.op("Range", [zero, span, one])
    places = g.op("Add", [_column(g, first), steps])
    keys = g.op("Clip", [places, zero, blocks.last])
    # Distance of each key of a block to each of its queries, [width, span].
    own = g.op("Range", [blocks.margin, g.op("Add", [blocks.margin, blocks.width]), one])
    far = _is_greater(g, g.op("Abs", [g.op("Sub", [steps, _column(g, own)])]), distance)
    beyond = _is_greater(g, g.op("Abs", [g.op("Sub", [places, keys])]), 0)
    padding = g.op("Gather", [padded_tokens(part.context), keys], {"axis": 1})
    absent = g.op("Unsqueeze", [g.op("Max", [padding, beyond]), g.constant([2], np.int64)])
    scores = g.op("Mul", [g.op("Max", [absent, far]), g.constant(MASKED, np.float32)])
    sizes = [g.constant([-1, 1], np.int64), _vector(g, blocks.width), _vector(g, span)]
    return _Layout(
        queries=_of_groups(part, g.op("Clip", [queries, zero, blocks.last])),
        keys=_of_groups(part, keys),
        query_shape=_shape(g, blocks.width, shape.hidden // shape.head_groups),
        key_shape=_shape(g, span, shape.key_heads * shape.head_size // shape.head_groups),
        mask=g.op("Reshape", [scores, g.op("Concat", sizes, {"axis": 0})]),
    )


def _blocks(part: EncoderPart, distance: int) -> _Blocks:
    """Append the sizes of the blocks: of one block, if the batch has up to LONG_TEXT columns."""
    g = part.graph
    columns = g.op("Squeeze", [g.op("Shape", [part.context.inputs[INPUT_IDS]], {"start": 1, "end": 2})])
    long = g.op("Cast", [g.op("Greater", [columns, _number(g, LONG_TEXT)])], {"to": INT64})
    # The width of long texts is twice the distance: then half of the keys of a block are its own tokens.
    narrower = g.op("Sub", [_number(g, max(2 * distance, MIN_WIDTH)), columns])
    width = g.op("Add", [columns, g.op("Mul", [long, narrower])])
    last = g.op("Sub", [columns, _number(g, 1)])
    count = g.op("Div", [g.op("Add", [last, width]), width])
    margin = g.op("Mul", [long, _number(g, distance)])
    return _Blocks(last, width, margin, g.op("Mul", [count, width]))


def _number(g: GraphBuilder, value: int) -> ir.Value:
    return g.constant(value, np.int64)


def _vector(g: GraphBuilder, number: ir.Value) -> ir.Value:
    return g.op("Unsqueeze", [number, g.constant([0], np.int64)])


def _column(g: GraphBuilder, row: ir.Value) -> ir.Value:
    return g.op("Unsqueeze", [row, g.constant([1], np.int64)])


def _shape(g: GraphBuilder, rows: ir.Value, channels: int) -> ir.Value:
    sizes = [g.constant([-1], np.int64), _vector(g, rows), g.constant([channels], np.int64)]
    return g.op("Concat", sizes, {"axis": 0})


def _is_greater(g: GraphBuilder, x: ir.Value, limit: int) -> ir.Value:
    """Append 1 where a number is greater than the limit, else 0; float32."""
    return g.op("Cast", [g.op("Greater", [x, _number(g, limit)])], {"to": FLOAT})
