"""Padding of a batch or a window, as attention reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import GraphContext

FLOAT = int(ir.DataType.FLOAT)
# Added to scores of tokens that a query does not attend to, however high they are: their exponential is exactly 0.
MASKED = -1e4
# Added to the scores of padded keys: they add less than a float32 sum resolves, unless their own scores are 40 above
# those of all tokens. Below about -87 the exponential is a denormal number, and Intel's CPUs are ten times slower.
PADDED = -60.0


def padded_tokens(context: GraphContext) -> ir.Value:
    """Append 1 for padding, 0 for tokens; float32 [batch, sequence]."""
    return _padded(context.graph, context.inputs[ATTENTION_MASK])


def _padded(g: GraphBuilder, mask: ir.Value) -> ir.Value:
    return g.op("Sub", [g.constant(1, np.float32), g.op("Cast", [mask], {"to": FLOAT})])


def padding_scores(g: GraphBuilder, mask: ir.Value) -> ir.Value:
    """Append the additive mask of attention scores: 0 for tokens, PADDED for padding; float32 [batch, 1, seq., seq.].

    `mask` is 1 for tokens, 0 for padding, [batch, sequence]. The result is expanded once for all layers, since the
    attention operator does not broadcast it over the queries.
    """
    padded = _padded(g, mask)
    row = g.op("Unsqueeze", [g.op("Mul", [padded, g.constant(PADDED, np.float32)]), g.constant([1, 2], np.int64)])
    batch = g.op("Shape", [mask], {"start": 0, "end": 1})
    length = g.op("Shape", [mask], {"start": 1, "end": 2})
    full = g.op("Concat", [batch, g.constant([1], np.int64), length, length], {"axis": 0})
    return g.op("Expand", [row, full])
