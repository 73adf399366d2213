"""Norms before linear layers: each can also output its result shifted and scaled, as quantized layers read it."""

from __future__ import annotations

import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.graph.context import Activation, GraphContext


def layer_norm(
    context: GraphContext, module: str, x: ir.Value, size: int, epsilon: float, *, bias: bool = True
) -> Activation:
    """LayerNormalization over the last axis (Ba et al. 2016, arXiv 1607.06450); `bias`: whether it has one."""
    g = context.graph
    weight = context.weights.vector(f"{module}.weight", size)
    offset = context.weights.vector(f"{module}.bias", size) if bias else None
    attributes = {"axis": -1, "epsilon": epsilon}

    def normalized(weight: Float32, offset: Float32 | None, suffix: str, group: str) -> ir.Value:
        inputs = [x, g.vector(f"{module}.weight{suffix}", weight, group)]
        if offset is not None:
            inputs.append(g.vector(f"{module}.bias{suffix}", offset, group))
        return g.op("LayerNormalization", inputs, attributes)

    def rescale(shift: Float32, scale: Float32, group: str) -> ir.Value:
        moved = -shift if offset is None else offset - shift
        return normalized(weight / scale, moved / scale, ".rescaled", group)

    return Activation(module, lambda: normalized(weight, offset, "", "shared"), rescale)


def rms_norm(context: GraphContext, module: str, x: ir.Value, size: int, epsilon: float) -> Activation:
    """RMSNorm over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4)."""
    g = context.graph
    weight = context.weights.vector(f"{module}.weight", size)

    def normalized(weight: Float32, suffix: str, group: str) -> ir.Value:
        scale = g.vector(f"{module}.weight{suffix}", weight, group)
        return g.op("RMSNormalization", [x, scale], {"axis": -1, "epsilon": epsilon})

    def rescale(shift: Float32, scale: Float32, group: str) -> ir.Value:
        moved = g.vector(f"{module}.shift", -shift / scale, group)
        return g.op("Add", [normalized(weight / scale, ".rescaled", group), moved])

    return Activation(module, lambda: normalized(weight, "", "shared"), rescale)
