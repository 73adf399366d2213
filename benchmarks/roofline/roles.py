"""Roles of nodes: table, products, attention, norms, residual, quantization, activation, heads, other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto

from benchmarks.roofline.values import Value, subgraphs
from benchmarks.roofline.work import ATTENTION, FLOAT_PRODUCTS, INT8_PRODUCTS

PRODUCTS, ATTENTION_ROLE, TABLE, HEADS, OTHER = "products", "attention", "table", "heads", "other"
ROLES = (PRODUCTS, ATTENTION_ROLE, "norms", "residual", "quantization", "activation", TABLE, HEADS, OTHER)
# Operators that have a role wherever they stand.
BY_OPERATOR: Mapping[str, str] = {
    **dict.fromkeys((*INT8_PRODUCTS, *FLOAT_PRODUCTS, "MatMulNBits", "Conv"), PRODUCTS),
    **dict.fromkeys((*ATTENTION, "QAttention", "RotaryEmbedding", "Softmax"), ATTENTION_ROLE),
    **dict.fromkeys(
        (
            "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
        "norms",
    ),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), "quantization"),
    **dict.fromkeys(("Gelu", "QuickGelu", "FastGelu", "BiasGelu", "Relu", "Sigmoid", "Tanh", "Erf"), "activation"),
}  # fmt: skip
TABLES = ("Gather", "GatherBlockQuantized")
# Role of a node without one of its own, by the roles of the nodes that its result reaches; the first that applies.
BY_CONSUMER = (
    ("quantization", "quantization"), ("norms", "residual"), (ATTENTION_ROLE, ATTENTION_ROLE),
    ("activation", "activation"), (PRODUCTS, OTHER),
)  # fmt: skip
# A node that leads to none of these belongs to the heads.
BACKBONE = (ATTENTION_ROLE, "norms")


def roles_of(nodes: Sequence[NodeProto], values: Mapping[str, Value]) -> list[str]:
    """Role of each node; `nodes` are those of `nodes_of`.

    Operators such as MatMul or LayerNormalization have a role of their own. Another, such as Mul, has that of the first
    ones that its result reaches: quantization includes the search for the largest value of a row, the residual all that
    is added up for a norm, attention its mask. Nodes that lead to no attention and no norm belong to the heads.
    """
    aliases = _outputs_of_subgraphs(nodes)
    # By the name of a value: roles of the first nodes with a role of their own that it reaches, and of all of them.
    first: dict[str, frozenset[str]] = {}
    every: dict[str, frozenset[str]] = {}
    roles = [OTHER] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        node, own = nodes[index], _own_role(nodes[index], values)
        outputs = [aliases.get(name, name) for name in node.output]
        reached, later = _union(first, outputs), _union(every, outputs)
        here = frozenset() if own is None or own == TABLE else frozenset((own,))
        # A product of two values may be attention, or the pooling of a head.
        certain = here.intersection((BY_OPERATOR.get(node.op_type, OTHER),))
        roles[index] = _role(own, reached, later | certain)
        for name in node.input:
            first[name] = first.get(name, frozenset()) | (here or reached)
            every[name] = every.get(name, frozenset()) | certain | later
    return roles


def _outputs_of_subgraphs(nodes: Sequence[NodeProto]) -> dict[str, str]:
    """Outputs of the nodes with subgraphs, by the outputs of those."""
    return {
        inner.name: outer
        for node in nodes
        for part in subgraphs(node)
        for inner, outer in zip(part.output, node.output, strict=False)
    }


def _own_role(node: NodeProto, values: Mapping[str, Value]) -> str | None:
    constant = [name in values and values[name].constant for name in node.input]
    if node.op_type in TABLES and constant[0] and len(values[node.input[0]].shape) > 1:
        return TABLE
    if node.op_type == "MatMul" and not any(constant):
        return ATTENTION_ROLE
    return BY_OPERATOR.get(node.op_type)


def _role(own: str | None, reached: frozenset[str], later: frozenset[str]) -> str:
    if own == TABLE:
        return TABLE
    if not later.intersection(BACKBONE):
        return HEADS
    if own is not None:
        return own
    return next((role for consumer, role in BY_CONSUMER if consumer in reached), OTHER)


def _union(roles: Mapping[str, frozenset[str]], names: Sequence[str]) -> frozenset[str]:
    return frozenset[str]().union(*(roles.get(name, ()) for name in names))
