"""Check of a graph file before onnxruntime loads it: its operators, and the files that it takes weights from.

onnxruntime runs any operator and maps any file of the folder that a graph names. The graph is therefore compared with
the manifest, whose files are checked, and with the operators that embedpack writes: loops, functions, random numbers
and operators of other domains are not among them. The branches of `If` are checked like the graph, and must have none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from embedpack.engine import onnx_fields
from embedpack.errors import PackError
from embedpack.storage.protobuf import Field, as_message, as_text, read_fields

# Operators of the graphs that embedpack writes, as domain.operator.
OPERATORS = frozenset({
    *(f"ai.onnx.{name}" for name in (
        "Abs", "Add", "And", "Attention", "Cast", "Clip", "Concat", "Cos", "CumSum", "Div", "Expand", "Flatten",
        "Gather", "GatherND", "Gelu", "Gemm", "Greater", "Identity", "If", "LayerNormalization", "MatMul", "Max", "Mul",
        "QuantizeLinear", "RMSNormalization", "Range", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceSum", "Relu",
        "Reshape", "RotaryEmbedding", "Round", "ScatterND", "Shape", "Sigmoid", "Sin", "Slice", "Split", "Sqrt",
        "Squeeze", "Sub", "Tanh", "Unsqueeze",
    )),
    *(f"com.microsoft.{name}" for name in (
        "GatherBlockQuantized", "GroupQueryAttention", "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention",
        "QuickGelu",
    )),
})  # fmt: skip

# The operator whose attributes are graphs.
BRANCHES = "ai.onnx.If"


@dataclass(frozen=True)
class _Node:
    """A node: its operator as domain.operator, and the graphs and tensors in its attributes."""

    operator: str
    branches: list[memoryview]
    tensors: list[memoryview]


def check_graph(content: bytes, where: str, operators: Collection[str], external_data: Collection[str]) -> None:
    """Compare the graph file `where` with the operators, as domain.operator, and weights files in its pack's manifest.

    PackError if it is not an ONNX graph, has operators that embedpack does not write, or differs from the manifest.
    """
    try:
        nodes, tensors = _read_model(memoryview(content))
        found = {node.operator for node in nodes}
        locations = set(_locations([*tensors, *(tensor for node in nodes for tensor in node.tensors)]))
    except (IndexError, KeyError, ValueError) as cause:
        detail = f" ({cause})" if isinstance(cause, _RefusedError) else ""
        raise PackError(f"{where}: not an ONNX graph of embedpack{detail}; copy the pack again") from cause
    for name in sorted(found - OPERATORS):
        raise PackError(f"{where}: has the operator {name!r}, which embedpack does not write; do not use this pack")
    _compare(where, "operators", found, set(operators))
    _compare(where, "weights files", locations, set(external_data))


class _RefusedError(ValueError):
    """A part of ONNX that embedpack does not write."""


def _compare(where: str, what: str, found: set[str], expected: set[str]) -> None:
    for name in sorted(found ^ expected):
        place = "the graph has it, pack.json does not" if name in found else "pack.json has it, the graph does not"
        raise PackError(f"{where}: the {what} differ from pack.json in {name!r}: {place}; copy the pack again")


def _read_model(model: memoryview) -> tuple[list[_Node], list[memoryview]]:
    """Nodes and initializers of a model, those of branches included."""
    fields = list(read_fields(model))
    if any(number in (onnx_fields.MODEL_TRAINING, onnx_fields.MODEL_FUNCTION) for number, _ in fields):
        raise _RefusedError("it has functions or training steps")
    (graph,) = (as_message(value) for number, value in fields if number == onnx_fields.MODEL_GRAPH)
    nodes, tensors = _read_graph(graph)
    for branch in [branch for node in nodes for branch in node.branches]:
        inner_nodes, inner_tensors = _read_graph(branch)
        if any(node.operator == BRANCHES for node in inner_nodes):
            raise _RefusedError("a branch has branches")
        nodes += inner_nodes
        tensors += inner_tensors
    return nodes, tensors


def _read_graph(graph: memoryview) -> tuple[list[_Node], list[memoryview]]:
    parts = list(read_fields(graph))
    if any(number == onnx_fields.GRAPH_SPARSE for number, _ in parts):
        raise _RefusedError("it has sparse weights")
    nodes = [_read_node(as_message(value)) for number, value in parts if number == onnx_fields.GRAPH_NODE]
    return nodes, [as_message(value) for number, value in parts if number == onnx_fields.GRAPH_INITIALIZER]


def _read_node(content: memoryview) -> _Node:
    names = {onnx_fields.NODE_OPERATOR: "", onnx_fields.NODE_DOMAIN: "", onnx_fields.NODE_OVERLOAD: ""}
    attributes = list[Field]()
    for number, value in read_fields(content):
        if number in names:
            # Of a repeated field, readers take the last, so each is checked: none may follow another.
            if names[number]:
                raise _RefusedError("a node names two operators")
            names[number] = as_text(value)
        elif number == onnx_fields.NODE_ATTRIBUTE:
            attributes += read_fields(as_message(value))
    if names[onnx_fields.NODE_OVERLOAD]:
        raise _RefusedError("a node names a function")
    operator = f"{names[onnx_fields.NODE_DOMAIN] or 'ai.onnx'}.{names[onnx_fields.NODE_OPERATOR]}"
    allowed = onnx_fields.ATTRIBUTE_GRAPH if operator == BRANCHES else None
    if any(part in onnx_fields.ATTRIBUTE_REFUSED and part != allowed for part, _ in attributes):
        raise _RefusedError("a node has a graph, a function or sparse weights")
    return _Node(
        operator,
        [as_message(value) for part, value in attributes if part == onnx_fields.ATTRIBUTE_GRAPH],
        [as_message(value) for part, value in attributes if part in onnx_fields.ATTRIBUTE_TENSORS],
    )


def _locations(tensors: list[memoryview]) -> Iterator[str]:
    """Files that tensors refer to."""
    for tensor in tensors:
        for number, value in read_fields(tensor):
            if number == onnx_fields.TENSOR_EXTERNAL:
                entry = dict(read_fields(as_message(value)))
                if as_text(entry[onnx_fields.ENTRY_KEY]) == "location":
                    yield as_text(entry[onnx_fields.ENTRY_VALUE])
