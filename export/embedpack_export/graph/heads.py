"""Heads: hidden states to finished vectors, so that a user of any language gets them from the graph alone.

sentence_embedding         float32 [batch, dimensions]     pooled, length 1
sentence_embedding_int8    int8    [batch, dimensions]     embedpack.codes, int8
sentence_embedding_binary  uint8   [batch, dimensions/8]   embedpack.codes, binary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from embedpack.codes import inverse_scale
from embedpack.pack import Pooling
from embedpack_export.graph.builder import GraphBuilder

FLOAT = int(ir.DataType.FLOAT)


def _mean(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    weight = g.op("Unsqueeze", [g.op("Cast", [mask], {"to": FLOAT}), g.constant([-1], np.int64)])
    tokens = g.constant([1], np.int64)
    total = g.op("ReduceSum", [g.op("Mul", [hidden, weight]), tokens], {"keepdims": 0})
    return g.op("Div", [total, g.op("ReduceSum", [weight, tokens], {"keepdims": 0})])


def _cls(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    return g.op("Gather", [hidden, g.constant(0, np.int64)], {"axis": 1})


def _last(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    """The last real token; padding is on the right, so it stands at length - 1."""
    length = g.op("ReduceSum", [mask, g.constant([1], np.int64)], {"keepdims": 1})
    return g.op("GatherND", [hidden, g.op("Sub", [length, g.constant([1], np.int64)])], {"batch_dims": 1})


POOL: Mapping[Pooling, Callable[[GraphBuilder, ir.Value, ir.Value], ir.Value]] = {
    "mean": _mean,
    "cls": _cls,
    "last": _last,
}


def sentence_outputs(
    g: GraphBuilder, hidden: ir.Value, mask: ir.Value, pooling: Pooling, dimensions: int, int8_scale: float
) -> None:
    """Append pooling, normalisation and codes, and declare the outputs. Binary codes need whole bytes."""
    vector = _unit(g, POOL[pooling](g, hidden, mask))
    g.output(vector, "sentence_embedding", ir.DataType.FLOAT, ["batch", dimensions])
    g.output(_int8(g, vector, int8_scale), "sentence_embedding_int8", ir.DataType.INT8, ["batch", dimensions])
    if dimensions % 8 == 0:
        packed: list[int | str] = ["batch", dimensions // 8]
        g.output(_binary(g, vector), "sentence_embedding_binary", ir.DataType.UINT8, packed)


def _unit(g: GraphBuilder, vector: ir.Value) -> ir.Value:
    """Length 1, as torch.nn.functional.normalize defines it."""
    length = g.op("ReduceL2", [vector, g.constant([-1], np.int64)], {"keepdims": 1})
    return g.op("Div", [vector, g.op("Max", [length, g.constant([1e-12], np.float32)])])


def _int8(g: GraphBuilder, vector: ir.Value, scale: float) -> ir.Value:
    steps = g.op("Round", [g.op("Mul", [vector, g.constant(inverse_scale(scale), np.float32)])])
    clipped = g.op("Clip", [steps, g.constant(-127, np.float32), g.constant(127, np.float32)])
    return g.op("Cast", [clipped], {"to": int(ir.DataType.INT8)})


def _binary(g: GraphBuilder, vector: ir.Value) -> ir.Value:
    """Signs packed eight to a byte, the first dimension in the highest bit."""
    signs = g.op("Cast", [g.op("Greater", [vector, g.constant(0, np.float32)])], {"to": FLOAT})
    grouped = g.op("Reshape", [signs, g.constant([0, -1, 8], np.int64)])
    places = g.constant([[128], [64], [32], [16], [8], [4], [2], [1]], np.float32)
    summed = g.op("Squeeze", [g.op("MatMul", [grouped, places]), g.constant([-1], np.int64)])
    return g.op("Cast", [summed], {"to": int(ir.DataType.UINT8)})
