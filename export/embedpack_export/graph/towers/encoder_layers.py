"""Embeddings and feed-forward networks of encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import INPUT_IDS, TOKEN_TYPE_IDS
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import GELU_MINIMUM, WHOLE, Activation
from embedpack_export.graph.towers.encoder_shape import ActivationName, EncoderPart, LearnedPositions
from embedpack_export.graph.towers.gated_layers import Function, GatedLayers, gated_activation, silu

# Lower bounds of activation functions that have one.
LOWER_BOUNDS: Mapping[ActivationName, float] = {
    "gelu": GELU_MINIMUM, "gelu_new": GELU_MINIMUM, "gelu_pytorch_tanh": GELU_MINIMUM, "relu": 0.0,
}  # fmt: skip


def embeddings(part: EncoderPart) -> ir.Value:
    """Append the embeddings before their norm; float32 [batch, sequence, hidden].

    They are the sum of word, position and token type, as far as the model has them. Positions are counted from the
    first token, since batches are padded on the right. Token type 0 is part of the positions; graphs that read token
    types add the difference of the others.
    """
    shape, context, ids = part.shape, part.context, part.context.inputs[INPUT_IDS]
    words = context.weights.table(shape.names.words, (shape.vocabulary, shape.hidden))
    added: ir.Value | None = None
    if isinstance(shape.positions, LearnedPositions):
        added = _positions(part, shape.positions)
    elif shape.token_types:
        vector = part.graph.vector(f"{shape.names.token_types}.first", _token_type(part))
        added = _with_type_branch(part, vector)
    table = context.table(words, ids)
    total = table if added is None else part.graph.op("Add", [table, added])
    return part.graph.op("Add", [total, _other_types(part)]) if shape.reads_token_types else total


def feed_forward(part: EncoderPart, prefix: str, x: Activation, residual: Activation) -> ir.Value:
    """Append the sum of `residual` and the feed-forward network of a layer; float32 [batch, sequence, hidden]."""
    shape, names, context = part.shape, part.shape.names, part.context
    inner = part.layer(f"{prefix}.{names.inner}", shape.hidden, shape.intermediate, bias=shape.biases.inner)
    outer = part.layer(f"{prefix}.{names.outer}", shape.intermediate, shape.hidden, bias=shape.biases.outer)
    function, site = activation_function(shape.activation), f"{prefix}.intermediate.active"
    if names.gate is not None:
        gate = part.layer(f"{prefix}.{names.gate}", shape.hidden, shape.intermediate, bias=shape.biases.inner)
        layers = GatedLayers(gate, inner, outer, function, _inner_parts(part))
        return context.sum_with(residual, gated_activation(context, x, site, layers), outer)
    (products,) = context.linear_parts(x, replace(inner, parts=_inner_parts(part)))
    values = [function(part.graph, product) for product in products]
    active = Activation.of_parts(part.graph, site, values, lower_bound=LOWER_BOUNDS.get(shape.activation))
    return context.sum_with(residual, active, outer)


def _inner_parts(part: EncoderPart) -> tuple[slice, ...]:
    """Parts of the inner channels of a feed-forward network: several for models of long texts, else one."""
    width = part.shape.intermediate // part.shape.inner_parts
    if width == part.shape.intermediate or not part.context.format.in_parts:
        return WHOLE
    return tuple(slice(index * width, (index + 1) * width) for index in range(part.shape.inner_parts))


def activation_function(name: ActivationName) -> Function:
    """The activation function with this name in config.json."""
    if name == "silu":
        return silu
    if name == "relu":
        return _relu
    approximation = "none" if name == "gelu" else "tanh"
    return lambda g, x: g.op("Gelu", [x], {"approximate": approximation})


def _relu(g: GraphBuilder, x: ir.Value) -> ir.Value:
    return g.op("Max", [x, g.constant(0, np.float32)])


def _positions(part: EncoderPart, positions: LearnedPositions) -> ir.Value:
    """Append the rows of the position table for a batch, with token type 0; float32 [sequence, hidden]."""
    g, hidden, ids = part.graph, part.shape.hidden, part.context.inputs[INPUT_IDS]
    matrix = part.context.weights.matrix(positions.module, (positions.rows, hidden))
    type_row = _token_type(part) if part.shape.token_types else np.zeros(hidden, np.float32)
    rows = (chunk + type_row for chunk in matrix.chunks())
    table = g.weight(f"{positions.module}.weight", "shared", rows, np.float32, matrix.shape)
    length = g.op("Shape", [ids], {"start": 1, "end": 2})
    first = g.constant([positions.first], np.int64)
    last = g.op("Add", [length, first])
    sliced = g.op("Slice", [table, first, last, g.constant([0], np.int64)])

    def indices() -> ir.Value:
        return g.op("Range", [g.op("Squeeze", [first]), g.op("Squeeze", [last]), g.constant(1, np.int64)])

    added = part.context.add_row_branch(matrix, indices, sliced)
    return _with_type_branch(part, added) if part.shape.token_types else added


def _with_type_branch(part: EncoderPart, rows: ir.Value) -> ir.Value:
    """Append `rows` plus the branch of token type 0, if the table of token types has one."""
    return part.context.add_row_branch(_token_types(part), lambda: part.graph.constant(0, np.int64), rows)


def _token_types(part: EncoderPart) -> Matrix:
    shape = part.shape
    return part.context.weights.matrix(shape.names.token_types, (shape.token_types, shape.hidden))


def _other_types(part: EncoderPart) -> ir.Value:
    """Append the row of each token's type less that of type 0; float32 [batch, sequence, hidden]."""
    g, matrix = part.graph, _token_types(part)
    rows = (chunk - _token_type(part) for chunk in matrix.chunks())
    table = g.weight(f"{part.shape.names.token_types}.others", "shared", rows, np.float32, matrix.shape)
    return g.op("Gather", [table, part.context.inputs[TOKEN_TYPE_IDS]], {"axis": 0})


def _token_type(part: EncoderPart) -> Float32:
    row: Float32 = next(_token_types(part).chunks())[0]
    return row
