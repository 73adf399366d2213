"""Padding of a batch, as attention reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack_export.graph.context import GraphContext

FLOAT = int(ir.DataType.FLOAT)
# Score of padded keys, whose exponential is exactly 0 in float32.
MASKED = -1e4


def padded_tokens(context: GraphContext) -> ir.Value:
    """Append 1 for padding, 0 for tokens; float32 [batch, sequence]."""
    g = context.graph
    tokens = g.op("Cast", [context.inputs[ATTENTION_MASK]], {"to": FLOAT})
    return g.op("Sub", [g.constant(1, np.float32), tokens])


def padding_scores(context: GraphContext) -> ir.Value:
    """Append the additive mask of attention scores: 0 for tokens, MASKED for padding; float32 [batch, 1, seq., seq.].

    It is expanded once for all layers, since the attention operator does not broadcast it over the queries.
    """
    g, mask = context.graph, context.inputs[ATTENTION_MASK]
    padded = padded_tokens(context)
    row = g.op("Unsqueeze", [g.op("Mul", [padded, g.constant(MASKED, np.float32)]), g.constant([1, 2], np.int64)])
    batch = g.op("Shape", [mask], {"start": 0, "end": 1})
    length = g.op("Shape", [mask], {"start": 1, "end": 2})
    full = g.op("Concat", [batch, g.constant([1], np.int64), length, length], {"axis": 0})
    return g.op("Expand", [row, full])
