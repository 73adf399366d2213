"""Layers of heads in a graph: float32 in every weights format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.formats.fp32 import exact_linear
from embedpack_export.sources.head_layers import ActivationName, Dense, Layer, LayerNorm, TokenLogits


def head_layers(context: GraphContext, value: ir.Value, layers: Sequence[Layer | TokenLogits]) -> ir.Value:
    """Append layers to a value [..., inputs]; CheckpointError if a tensor is missing or does not fit."""
    for layer in layers:
        match layer:
            case Dense():
                value = _dense(context, value, layer)
            case LayerNorm():
                value = _layer_norm(context, value, layer)
            case TokenLogits():
                value = _token_logits(context, value, layer)
    return value


def _dense(context: GraphContext, value: ir.Value, dense: Dense) -> ir.Value:
    linear = LinearLayer(
        context.weights.matrix(dense.module, (dense.outputs, dense.inputs)),
        context.weights.vector(f"{dense.module}.bias", dense.outputs) if dense.bias else None,
    )
    product = exact_linear(context, Activation.of(f"{dense.module}.input", value), linear)
    result = ACTIVATIONS[dense.activation](context.graph, product)
    return result if not dense.residual else context.graph.op("Add", [result, _residual(context, value, dense)])


def _residual(context: GraphContext, value: ir.Value, dense: Dense) -> ir.Value:
    """The input of a layer, or its product where the result has other dimensions."""
    if dense.residual_module is None:
        return value
    matrix = context.weights.matrix(dense.residual_module, (dense.outputs, dense.inputs))
    return exact_linear(context, Activation.of(f"{dense.residual_module}.input", value), LinearLayer(matrix, None))


def _layer_norm(context: GraphContext, value: ir.Value, norm: LayerNorm) -> ir.Value:
    vectors = [context.graph.vector(name, context.weights.vector(name, norm.outputs)) for name in norm.shapes]
    return context.graph.op("LayerNormalization", [value, *vectors], {"axis": -1, "epsilon": norm.epsilon})


def _token_logits(context: GraphContext, value: ir.Value, layer: TokenLogits) -> ir.Value:
    """Product with the difference of two rows, which stands for two columns of a product with the vocabulary."""
    true, false = (context.weights.vector(name, layer.inputs) for name in layer.shapes)
    return context.graph.op("MatMul", [value, context.graph.constant((true - false)[:, None], np.float32)])


def _silu(g: GraphBuilder, x: ir.Value) -> ir.Value:
    return g.op("Mul", [x, g.op("Sigmoid", [x])])


ACTIVATIONS: Mapping[ActivationName, Callable[[GraphBuilder, ir.Value], ir.Value]] = {
    "none": lambda g, x: x,
    "relu": lambda g, x: g.op("Relu", [x]),
    "tanh": lambda g, x: g.op("Tanh", [x]),
    "gelu": lambda g, x: g.op("Gelu", [x], {"approximate": "none"}),
    "silu": _silu,
    "sigmoid": lambda g, x: g.op("Sigmoid", [x]),
}
