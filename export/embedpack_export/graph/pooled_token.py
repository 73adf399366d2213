"""One token's vector, from a graph whose last layer computes that token alone.

Where the vector of a text is that of its first or last token, the nodes after the last attention are computed for one
token of each text: they take rows one by one, so the choice of the token can be made before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from embedpack.pack.manifest import Pooling
from embedpack_export.graph.builder import GraphBuilder

# Operators that compute each row of their inputs by itself. Products take rows in their first input alone.
ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Clip", "Div", "Gelu", "Max", "Mul", "QuantizeLinear", "QuickGelu", "Relu", "Round",
    "Sigmoid", "Sub", "Tanh",
})  # fmt: skip
PRODUCTS = frozenset({"MatMul", "MatMulIntegerToFloat", "MatMulNBits"})
NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
ALONG_ROWS = frozenset({"Concat", "Split"})
EXTREMES = frozenset({"ReduceMax", "ReduceMin"})


def pooled_token(g: GraphBuilder, hidden: ir.Value, mask: ir.Value, pooling: Pooling) -> ir.Value:
    """Append the states [batch, hidden] of one token of each text, the only ones that are read of `hidden`.

    `hidden` is float32 [batch, sequence, hidden], `mask` int64 [batch, sequence] with padding on the right. The nodes
    before `hidden` are changed: they compute this token alone, as far back as they take rows one by one.
    """
    choose = POOLED_TOKENS[pooling](g, mask)
    nodes = _nodes_of_rows(g, hidden)
    if not nodes:
        return _without_tokens(g, choose(hidden))
    chosen: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for index, value in _rows(node):
            if value.producer() not in nodes:
                if value not in chosen:
                    chosen[value] = choose(value)
                node.replace_input_with(index, chosen[value])
    g.move_to_end(nodes)
    return _without_tokens(g, hidden)


def _nodes_of_rows(g: GraphBuilder, hidden: ir.Value) -> dict[ir.Node, None]:
    """Nodes that compute `hidden` row by row and nothing else, in their order."""
    found: dict[ir.Node, None] = {}
    for node in reversed(g.nodes):
        read = [user for value in node.outputs for user, _ in value.uses()]
        alone = hidden in node.outputs if not read else all(user in found for user in read)
        if alone and _takes_rows(node):
            found[node] = None
    return dict.fromkeys(reversed(found))


def _takes_rows(node: ir.Node) -> bool:
    """True if a node computes each row of its inputs by itself."""
    if node.op_type in ELEMENTWISE | PRODUCTS:
        return True
    if node.op_type in NORMS | ALONG_ROWS:
        return _axis(node) == -1
    if node.op_type in EXTREMES:
        axes = node.inputs[1]
        return axes is not None and axes.const_value is not None and axes.const_value.numpy().tolist() == [-1]
    return False


def _axis(node: ir.Node) -> int:
    attribute = node.attributes.get("axis")
    # -1 is the default of norms; Concat has none, and Split's is 0.
    return (-1 if node.op_type in NORMS else 0) if attribute is None else attribute.as_int()


def _rows(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """Inputs of a node that have rows: those that are computed, and no weights."""
    inputs = node.inputs[:1] if node.op_type in PRODUCTS else node.inputs
    return [(index, value) for index, value in enumerate(inputs) if value is not None and value.producer() is not None]


def _first(g: GraphBuilder, mask: ir.Value) -> Callable[[ir.Value], ir.Value]:
    index = g.constant([0], np.int64)
    return lambda value: g.op("Gather", [value, index], {"axis": 1})


def _last(g: GraphBuilder, mask: ir.Value) -> Callable[[ir.Value], ir.Value]:
    length = g.op("ReduceSum", [mask, g.constant([1], np.int64)], {"keepdims": 1})
    index = g.op("Unsqueeze", [g.op("Sub", [length, g.constant([1], np.int64)]), g.constant([1], np.int64)])
    return lambda value: g.op("GatherND", [value, index], {"batch_dims": 1})


# Choice of the token, by pooling.
POOLED_TOKENS: Mapping[Pooling, Callable[[GraphBuilder, ir.Value], Callable[[ir.Value], ir.Value]]] = {
    "cls": _first,
    "last": _last,
}


def _without_tokens(g: GraphBuilder, states: ir.Value) -> ir.Value:
    return g.op("Squeeze", [states, g.constant([1], np.int64)])
