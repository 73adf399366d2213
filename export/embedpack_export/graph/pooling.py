"""Sentence pooling: the hidden states of a text to one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from embedpack.pack.manifest import Pooling
from embedpack_export.graph.builder import GraphBuilder

FLOAT = int(ir.DataType.FLOAT)


def mask_column(g: GraphBuilder, mask: ir.Value) -> ir.Value:
    """A mask int64 [batch, sequence] as float32 [batch, sequence, 1]."""
    return g.op("Unsqueeze", [g.op("Cast", [mask], {"to": FLOAT}), g.constant([-1], np.int64)])


def _mean(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    weight = mask_column(g, mask)
    tokens = g.constant([1], np.int64)
    total = g.op("ReduceSum", [g.op("Mul", [hidden, weight]), tokens], {"keepdims": 0})
    return g.op("Div", [total, g.op("ReduceSum", [weight, tokens], {"keepdims": 0})])


def _cls(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    return g.op("Gather", [hidden, g.constant(0, np.int64)], {"axis": 1})


def _last(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    """The last token, at length - 1, since padding is on the right."""
    length = g.op("ReduceSum", [mask, g.constant([1], np.int64)], {"keepdims": 1})
    return g.op("GatherND", [hidden, g.op("Sub", [length, g.constant([1], np.int64)])], {"batch_dims": 1})


POOL: Mapping[Pooling, Callable[[GraphBuilder, ir.Value, ir.Value], ir.Value]] = {
    "mean": _mean,
    "cls": _cls,
    "last": _last,
}
