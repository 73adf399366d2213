"""Sentence pooling: the hidden states of a text to one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from embedpack.pack.manifest import Pooling
from embedpack_export.graph.builder import GraphBuilder

FLOAT = int(ir.DataType.FLOAT)
# Subtracted from padding, so that the largest state of a text is one of its tokens'.
BEYOND = 1e30


def mask_column(g: GraphBuilder, mask: ir.Value) -> ir.Value:
    """A mask, or weights, int64 [batch, sequence] as float32 [batch, sequence, 1]."""
    return g.op("Unsqueeze", [g.op("Cast", [mask], {"to": FLOAT}), g.constant([-1], np.int64)])


def last_places(g: GraphBuilder, mask: ir.Value) -> ir.Value:
    """Append the place of each text's last token: length - 1, as padding is on the right; int64 [batch, 1]."""
    length = g.op("ReduceSum", [mask, g.constant([1], np.int64)], {"keepdims": 1})
    return g.op("Sub", [length, g.constant([1], np.int64)])


def _sums(g: GraphBuilder, hidden: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Sums over the tokens: of the weighted states [batch, hidden], and of the weights [batch, 1]."""
    tokens = g.constant([1], np.int64)
    total = g.op("ReduceSum", [g.op("Mul", [hidden, weight]), tokens], {"keepdims": 0})
    return total, g.op("ReduceSum", [weight, tokens], {"keepdims": 0})


def _mean(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    return g.op("Div", list(_sums(g, hidden, mask_column(g, mask))))


def _weighted_mean(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    """Mean whose weights are the positions of the tokens, from 1."""
    positions = g.op("Mul", [g.op("CumSum", [mask, g.constant(1, np.int64)]), mask])
    return g.op("Div", list(_sums(g, hidden, mask_column(g, positions))))


def _mean_sqrt_len(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    """Sum over the square root of the number of tokens."""
    total, count = _sums(g, hidden, mask_column(g, mask))
    return g.op("Div", [total, g.op("Sqrt", [count])])


def _max(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    padding = g.op("Sub", [g.constant(1, np.float32), mask_column(g, mask)])
    lowered = g.op("Sub", [hidden, g.op("Mul", [padding, g.constant(BEYOND, np.float32)])])
    return g.op("ReduceMax", [lowered, g.constant([1], np.int64)], {"keepdims": 0})


def _cls(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    return g.op("Gather", [hidden, g.constant(0, np.int64)], {"axis": 1})


def _last(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    return g.op("GatherND", [hidden, last_places(g, mask)], {"batch_dims": 1})


POOL: Mapping[Pooling, Callable[[GraphBuilder, ir.Value, ir.Value], ir.Value]] = {
    "mean": _mean,
    "cls": _cls,
    "last": _last,
    "max": _max,
    "weighted_mean": _weighted_mean,
    "mean_sqrt_len": _mean_sqrt_len,
}
