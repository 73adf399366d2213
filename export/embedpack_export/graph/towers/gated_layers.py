"""Gated feed-forward networks (Shazeer 2020, arXiv 2002.05202): down(activation(gate(x)) * up(x))."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import WHOLE, Activation, GraphContext, LinearLayer

# Appends an activation function.
Function = Callable[[GraphBuilder, ir.Value], ir.Value]


def silu(g: GraphBuilder, x: ir.Value) -> ir.Value:
    """Append SiLU: QuickGelu with alpha 1 is it in one kernel."""
    return g.op("QuickGelu", [x], {"alpha": 1.0}, domain=CONTRIB)


@dataclass(frozen=True)
class GatedLayers:
    """Linear layers of a gated feed-forward network, and the activation function of the gate."""

    gate: LinearLayer
    up: LinearLayer
    down: LinearLayer
    function: Function = silu
    # Parts of the inner channels that are computed one after another, so that less is in memory.
    parts: tuple[slice, ...] = WHOLE


def gated_product(context: GraphContext, x: Activation, site: str, layers: GatedLayers) -> ir.Value:
    """Append down(function(gate(x)) * up(x)); `site` is the site of the product."""
    return context.linears(gated_activation(context, x, site, layers), layers.down)[0]


def gated_activation(context: GraphContext, x: Activation, site: str, layers: GatedLayers) -> Activation:
    """Append function(gate(x)) * up(x), which only `layers.down` reads."""
    gate, up = layers.gate, layers.up
    choice = context.smoothing(site, layers.down)
    layout = None if choice is None else choice.layout
    if layout is not None:
        gate = replace(gate, order=layout.order)
        up = replace(up, divisor=layout.divisors, order=layout.order)
    gate, up = replace(gate, parts=layers.parts), replace(up, parts=layers.parts)
    g = context.graph
    parts = [
        g.op("Mul", [layers.function(g, gated), upper])
        for gated, upper in zip(*context.linear_parts(x, gate, up), strict=True)
    ]
    return Activation.of_parts(g, site, parts, layout)
