"""One token's vector, from a graph whose last layer computes that token alone.

Where the vector of a text is that of its first or last token, the last layer is computed for one token of each text:
the nodes after its attention take rows one by one, so the choice of the token can be made before them; for the first
token also before the attention, whose keys and values remain those of all tokens.

The token is chosen twice: products of a single row, those of one text alone, have other kernels on some CPUs, which sum
in another order than those of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from embedpack.pack.manifest import Pooling
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.pooling import last_places

# Operators that compute each row of their inputs by itself; products and attention those of their first input.
ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Clip", "Div", "Gelu", "Max", "Mul", "QuantizeLinear", "QuickGelu", "Relu", "Round",
    "Sigmoid", "Sub", "Tanh",
})  # fmt: skip
PRODUCTS = frozenset({"MatMul", "MatMulIntegerToFloat", "MatMulNBits"})
NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
ALONG_ROWS = frozenset({"Concat", "Split"})
EXTREMES = frozenset({"ReduceMax", "ReduceMin"})
ATTENTION = "Attention"
ATTENTION_SCORES = 3  # index of the input with the additive mask [batch, heads, queries, keys]


def pooled_token(g: GraphBuilder, hidden: ir.Value, mask: ir.Value, pooling: Pooling) -> ir.Value:
    """Append the states [batch, hidden] of one token of each text, the only ones that are read of `hidden`.

    `hidden` is float32 [batch, sequence, hidden], `mask` int64 [batch, sequence] with padding on the right. The nodes
    before `hidden` are changed: they compute this token alone, as far back as they take rows one by one.
    """
    choose = POOLED_TOKENS[pooling](g, mask)
    nodes = _nodes_of_rows(g, hidden, pooling)
    chosen: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for index in _row_inputs(node):
            value = node.inputs[index]
            # Weights have no producer.
            if value is not None and value.producer() is not None and value.producer() not in nodes:
                if value not in chosen:
                    chosen[value] = choose(value)
                node.replace_input_with(index, chosen[value])
        if node.op_type == ATTENTION:
            _choose_scores(g, node)
    g.move_to_end(nodes)
    states = hidden if nodes else choose(hidden)
    return g.op("Gather", [states, g.constant(0, np.int64)], {"axis": 1})


def _nodes_of_rows(g: GraphBuilder, hidden: ir.Value, pooling: Pooling) -> dict[ir.Node, None]:
    """Nodes that compute `hidden` row by row and nothing else, in their order."""
    found: dict[ir.Node, None] = {}
    for node in reversed(g.nodes):
        uses = [use for value in node.outputs for use in value.uses()]
        alone = all(user in found and index in _row_inputs(user) for user, index in uses)
        if (alone if uses else hidden in node.outputs) and _takes_rows(node, pooling):
            found[node] = None
    return dict.fromkeys(reversed(found))


def _takes_rows(node: ir.Node, pooling: Pooling) -> bool:
    """True if a node computes each row of its inputs by itself."""
    if node.op_type == ATTENTION:
        # A last token has another place in each text, so its row of the scores is not chosen.
        return pooling == "cls"
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


def _row_inputs(node: ir.Node) -> range:
    """Indices of the inputs of a node whose rows it takes one by one."""
    return range(1 if node.op_type in {*PRODUCTS, ATTENTION} else len(node.inputs))


def _choose_scores(g: GraphBuilder, attention: ir.Node) -> None:
    """Give the attention of the first token, twice, its rows of the mask."""
    scores = attention.inputs[ATTENTION_SCORES]
    rows = g.op("Gather", [scores, g.constant([0, 0], np.int64)], {"axis": 2})
    attention.replace_input_with(ATTENTION_SCORES, rows)


def _first(g: GraphBuilder, mask: ir.Value) -> Callable[[ir.Value], ir.Value]:
    index = g.constant([0, 0], np.int64)
    return lambda value: g.op("Gather", [value, index], {"axis": 1})


def _last(g: GraphBuilder, mask: ir.Value) -> Callable[[ir.Value], ir.Value]:
    index = g.op("Unsqueeze", [last_places(g, mask), g.constant([1], np.int64)])
    twice = g.op("Concat", [index, index], {"axis": 1})
    return lambda value: g.op("GatherND", [value, twice], {"batch_dims": 1})


# Choice of the token, [batch, 2, ...] of values [batch, sequence, ...], by pooling.
POOLED_TOKENS: Mapping[Pooling, Callable[[GraphBuilder, ir.Value], Callable[[ir.Value], ir.Value]]] = {
    "cls": _first,
    "last": _last,
}
