"""Providers that the nodes of a session were assigned to: none may fall back to the CPU unnoticed.

onnxruntime runs a node without a kernel on the GPU on the CPU, and copies its inputs and outputs: vectors are right and
slow. The one exception is the computation of shapes, which onnxruntime places on the CPU on purpose.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from embedpack.engine import onnx_fields
from embedpack.engine.devices import CUDA_PROVIDER
from embedpack.errors import PackError
from embedpack.storage.protobuf import as_message, as_text, read_fields

logger = logging.getLogger("embedpack")

# Operators of whole numbers that shapes are computed with; "Shape" begins such a computation.
SHAPE = "Shape"
OF_SHAPES = frozenset({
    SHAPE, "Add", "Cast", "Concat", "Div", "Expand", "Gather", "Greater", "Identity", "Max", "Mul", "Range", "Reshape",
    "Slice", "Squeeze", "Sub", "Unsqueeze",
})  # fmt: skip
# Entry of the options of a session that makes it keep the assignment.
RECORD = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True)
class AssignedNode:
    """A node of a session and its provider."""

    name: str
    operator: str
    provider: str


def assigned_nodes(session: Any) -> list[AssignedNode]:
    """Nodes of a session, which was made with RECORD."""
    return [
        AssignedNode(node.name, node.op_type, group.ep_name)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]


def check_assignment(where: str, nodes: list[AssignedNode], content: bytes) -> None:
    """Log where the nodes of a graph run; PackError with operator and node if one that is no shape runs on the CPU.

    `content` is the graph's file `where`.
    """
    others = [node for node in nodes if node.provider != CUDA_PROVIDER]
    shapes = _shape_nodes(content) if others else frozenset()
    fallen = [node for node in others if node.name not in shapes]
    logger.info(
        "%s: %d nodes on %s, %d of shapes and %d others on the CPU",
        where, len(nodes) - len(others), CUDA_PROVIDER, len(others) - len(fallen), len(fallen),
    )  # fmt: skip
    if fallen:
        first = fallen[0]
        raise PackError(
            f"{where}: node {first.name!r} ({first.operator}) and {len(fallen) - 1} others run on {first.provider}, as "
            f"{CUDA_PROVIDER} has no kernel for them: take a variant for GPUs, update onnxruntime, or pass "
            "device='cpu'"
        )


def _shape_nodes(content: bytes) -> frozenset[str]:
    """Names of the nodes that compute shapes from shapes and constants alone."""
    names, values, constants = set[str](), set[str](), set[str]()
    graph = next(as_message(value) for number, value in read_fields(memoryview(content))
                 if number == onnx_fields.MODEL_GRAPH)  # fmt: skip
    parts = list(read_fields(graph))
    for number, value in parts:
        if number == onnx_fields.GRAPH_INITIALIZER:
            constants.update(_texts(as_message(value), onnx_fields.TENSOR_NAME))
    for number, value in parts:
        if number != onnx_fields.GRAPH_NODE:
            continue
        node = as_message(value)
        (operator,) = _texts(node, onnx_fields.NODE_OPERATOR)
        inputs = set(_texts(node, onnx_fields.NODE_INPUT))
        of_shapes = operator in OF_SHAPES and inputs <= values | constants and bool(inputs & values)
        if operator == SHAPE or of_shapes:
            names.update(_texts(node, onnx_fields.NODE_NAME))
            values.update(_texts(node, onnx_fields.NODE_OUTPUT))
    return frozenset(names)


def _texts(message: memoryview, field: int) -> Iterator[str]:
    return (as_text(value) for number, value in read_fields(message) if number == field)
