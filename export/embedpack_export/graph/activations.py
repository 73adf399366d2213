"""Activations between the layers of a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import onnx_ir as ir

from embedpack_export.graph.builder import GraphBuilder

ActivationName = Literal["none", "relu", "tanh", "gelu", "silu", "sigmoid"]


def _silu(g: GraphBuilder, x: ir.Value) -> ir.Value:
    return g.op("Mul", [x, g.op("Sigmoid", [x])])


# Appends an activation, as torch.nn has it with its defaults.
ACTIVATIONS: Mapping[ActivationName, Callable[[GraphBuilder, ir.Value], ir.Value]] = {
    "none": lambda g, x: x,
    "relu": lambda g, x: g.op("Relu", [x]),
    "tanh": lambda g, x: g.op("Tanh", [x]),
    "gelu": lambda g, x: g.op("Gelu", [x], {"approximate": "none"}),
    "silu": _silu,
    "sigmoid": lambda g, x: g.op("Sigmoid", [x]),
}
