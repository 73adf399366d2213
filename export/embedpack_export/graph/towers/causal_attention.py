"""Causal attention with grouped queries (GQA, Ainslie et al. 2023, arXiv 2305.13245) by GroupQueryAttention.

All three outputs of the operator are named: then the memory of its kernel does not grow with the square of the length.
Rows must be padded on the right.

The kernel for CPUs computes the scores of all pairs of tokens, also those that are masked because the key comes after
the query. A long text is therefore computed in parts: their queries have the keys of their own and of earlier parts,
which is little more than half of the pairs. The kernel takes earlier keys for one text alone, so batches are computed
in one part. The values are the same, bit for bit: masked keys add zeros to each sum, after its other terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import ATTENTION_MASK, TOKEN_AXES
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import GraphContext
from embedpack_export.graph.pooling import last_places

FLOAT, FLOAT16, INT32 = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16), int(ir.DataType.INT32)
PARTS = 8
# Shorter texts take as long in one part. Texts of 64 tokens or more have at least two in the last part: products of a
# single row may sum in another order.
MIN_TOKENS = 96
# Position of the last token of each text, int32 [batch], and number of columns with keys, int32 [1].
Ends = tuple[ir.Value, ir.Value]


@dataclass(frozen=True)
class Heads:
    """Numbers of heads of queries, and of keys and values, and their size."""

    queries: int
    keys: int
    size: int


def causal_attention(context: GraphContext, qkv: Sequence[ir.Value], heads: Heads, window: int | None) -> ir.Value:
    """Append attention of tokens to themselves and earlier ones, at most `window` tokens in all unless it is None.

    `qkv` are queries, float32 [batch, sequence, queries x size], keys and values [batch, sequence, keys x size]; the
    result has the shape of the queries.
    """
    g, attributes = context.graph, {"num_heads": heads.queries, "kv_num_heads": heads.keys}
    if window is not None:
        attributes["local_window_size"] = window
    whole = context.once("ends", lambda: _ends(context))
    if context.format.device == "cuda":
        halves = [g.op("Cast", [each], {"to": FLOAT16}) for each in qkv]
        return g.op("Cast", [_attention(g, halves, whole, attributes)[0]], {"to": FLOAT})
    one_long_text = context.once("one_long_text", lambda: _one_long_text(context, whole[1]))
    of_parts = context.once("ends_of_parts", lambda: _ends_of_parts(g, whole[1]))
    return g.branch(
        one_long_text,
        lambda: _in_parts(g, qkv, of_parts, attributes),
        lambda: _attention(g, qkv, whole, attributes)[0],
        (*TOKEN_AXES, heads.queries * heads.size),
    )


def _in_parts(
    g: GraphBuilder, qkv: Sequence[ir.Value], ends: Sequence[Ends], attributes: Mapping[str, int]
) -> ir.Value:
    parts = (g.ops("Split", [each], {"axis": 1, "num_outputs": PARTS}, outputs=PARTS) for each in qkv)
    earlier: Sequence[ir.Value | None] = (None, None)
    mixed = []
    for part, end in zip(zip(*parts, strict=True), ends, strict=True):
        values, *earlier = _attention(g, part, end, attributes, earlier)
        mixed.append(values)
    return g.op("Concat", mixed, {"axis": 1})


def _attention(
    g: GraphBuilder,
    qkv: Sequence[ir.Value],
    ends: Ends,
    attributes: Mapping[str, int],
    earlier: Sequence[ir.Value | None] = (None, None),
) -> Sequence[ir.Value]:
    """Append the operator; returns its result, and the keys and values of all tokens so far."""
    return g.ops("GroupQueryAttention", [*qkv, *earlier, *ends], attributes, domain=CONTRIB, outputs=3)


def _ends(context: GraphContext) -> Ends:
    g, mask = context.graph, context.inputs[ATTENTION_MASK]
    last = g.op("Squeeze", [last_places(g, mask), g.constant([1], np.int64)])
    columns = g.op("Shape", [mask], {"start": 1, "end": 2})
    return g.op("Cast", [last], {"to": INT32}), g.op("Cast", [columns], {"to": INT32})


def _one_long_text(context: GraphContext, columns: ir.Value) -> ir.Value:
    """True for a batch of one text of at least MIN_TOKENS tokens, bool [1]."""
    g = context.graph
    texts = g.op("Shape", [context.inputs[ATTENTION_MASK]], {"start": 0, "end": 1})
    one = g.op("Greater", [g.constant([2], np.int64), texts])
    return g.op("And", [one, g.op("Greater", [columns, g.constant([MIN_TOKENS - 1], np.int32)])])


def _ends_of_parts(g: GraphBuilder, columns: ir.Value) -> Sequence[Ends]:
    """Ends of parts of equal size, rounded up; the last part has the rest."""
    rounded_up = g.op("Add", [columns, g.constant([PARTS - 1], np.int32)])
    size = g.op("Div", [rounded_up, g.constant([PARTS], np.int32)])
    inner = g.op("Mul", [size, g.constant(range(1, PARTS), np.int32)])
    totals = g.op("Concat", [inner, columns], {"axis": 0})
    last = g.op("Sub", [totals, g.constant([1], np.int32)])
    lasts, ends = (g.ops("Split", [each], {"axis": 0, "num_outputs": PARTS}, outputs=PARTS) for each in (last, totals))
    return list(zip(lasts, ends, strict=True))
