"""Heads: hidden states to finished vectors, so that a user of any language gets them from the graph alone.

sentence_embedding         float32 [batch, dimensions]               pooled, length 1
sentence_embedding_int8    int8    [batch, dimensions]               embedpack.codes, int8
sentence_embedding_binary  uint8   [batch, dimensions/8]             embedpack.codes, binary
token_embeddings           float32 [batch, sequence, dimensions]     of each token, length 1; 0 for padding
token_embeddings_int8      int8    [batch, sequence, dimensions]
token_embeddings_binary    uint8   [batch, sequence, dimensions/8]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from embedpack.codes import inverse_scale
from embedpack.pack import Pooling
from embedpack_export.graph.builder import GraphBuilder

FLOAT = int(ir.DataType.FLOAT)
SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"


def _mean(g: GraphBuilder, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    weight = _column(g, mask)
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


@dataclass(frozen=True)
class Outputs:
    """Names and shape of a vector and its codes; `axes` are those in front of the dimensions."""

    name: str
    axes: tuple[str, ...]
    dimensions: int
    int8_scale: float


def sentence_vector(g: GraphBuilder, hidden: ir.Value, mask: ir.Value, pooling: Pooling) -> ir.Value:
    """One vector of length 1 for each row, from the tokens that the mask int64 [batch, sequence] counts."""
    return _unit(g, POOL[pooling](g, hidden, mask))


def token_vectors(g: GraphBuilder, projected: ir.Value, mask: ir.Value) -> ir.Value:
    """One vector of length 1 for each real token, zeros for padding."""
    return g.op("Mul", [_unit(g, projected), _column(g, mask)])


def vector_outputs(g: GraphBuilder, vector: ir.Value, outputs: Outputs) -> None:
    """Declare a vector and its codes as outputs. Binary codes need whole bytes."""
    axes: list[int | str] = [*outputs.axes]
    g.output(vector, outputs.name, ir.DataType.FLOAT, [*axes, outputs.dimensions])
    g.output(
        _int8(g, vector, outputs.int8_scale), f"{outputs.name}_int8", ir.DataType.INT8, [*axes, outputs.dimensions]
    )
    if outputs.dimensions % 8 == 0:
        packed = _binary(g, vector, len(axes))
        g.output(packed, f"{outputs.name}_binary", ir.DataType.UINT8, [*axes, outputs.dimensions // 8])


def _column(g: GraphBuilder, mask: ir.Value) -> ir.Value:
    """A mask int64 [batch, sequence] as float32 [batch, sequence, 1]."""
    return g.op("Unsqueeze", [g.op("Cast", [mask], {"to": FLOAT}), g.constant([-1], np.int64)])


def _unit(g: GraphBuilder, vector: ir.Value) -> ir.Value:
    """Length 1, as torch.nn.functional.normalize defines it."""
    length = g.op("ReduceL2", [vector, g.constant([-1], np.int64)], {"keepdims": 1})
    return g.op("Div", [vector, g.op("Max", [length, g.constant([1e-12], np.float32)])])


def _int8(g: GraphBuilder, vector: ir.Value, scale: float) -> ir.Value:
    steps = g.op("Round", [g.op("Mul", [vector, g.constant(inverse_scale(scale), np.float32)])])
    clipped = g.op("Clip", [steps, g.constant(-127, np.float32), g.constant(127, np.float32)])
    return g.op("Cast", [clipped], {"to": int(ir.DataType.INT8)})


def _binary(g: GraphBuilder, vector: ir.Value, axes: int) -> ir.Value:
    """Signs packed eight to a byte, the first dimension in the highest bit."""
    signs = g.op("Cast", [g.op("Greater", [vector, g.constant(0, np.float32)])], {"to": FLOAT})
    grouped = g.op("Reshape", [signs, g.constant([*[0] * axes, -1, 8], np.int64)])
    places = g.constant([[128], [64], [32], [16], [8], [4], [2], [1]], np.float32)
    summed = g.op("Squeeze", [g.op("MatMul", [grouped, places]), g.constant([-1], np.int64)])
    return g.op("Cast", [summed], {"to": int(ir.DataType.UINT8)})
