"""Nodes that compute shapes from shapes, replaced by their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

Shape = tuple[int, ...]
# Operators that compute shapes; operands of more elements are no shapes.
ARITHMETIC = (
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Cast",
    "Range", "Identity", "Equal", "Greater", "Less", "And", "Where", "Mod", "ReduceProd",
)  # fmt: skip
MAX_ELEMENTS = 4096


def fold_shapes(graph: GraphProto, shapes: Mapping[str, Shape]) -> bool:
    """Replace nodes with known results by initializers, and return whether there were any.

    `shapes` are the known shapes of values by name. Subgraphs stay as they are.
    """
    inputs = {info.name for info in graph.input}
    known: dict[str, npt.NDArray[Any]] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name not in inputs and tensor.data_location != TensorProto.EXTERNAL and _is_small(tensor.dims)
    }
    left: list[NodeProto] = []
    for node in graph.node:
        result = _result(node, known, shapes)
        if result is None:
            left.append(node)
        else:
            known[node.output[0]] = result
            graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
    found = len(left) < len(graph.node)
    del graph.node[:]
    graph.node.extend(left)
    return found


def _result(
    node: NodeProto, known: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Shape]
) -> npt.NDArray[Any] | None:
    if node.op_type == "Shape" and node.input[0] in shapes:
        slices = {attribute.name: attribute.i for attribute in node.attribute}
        return np.array(shapes[node.input[0]][slices.get("start", 0) : slices.get("end")], np.int64)
    operands = [known.get(name) for name in node.input if name]
    if node.op_type not in ARITHMETIC or node.domain or any(operand is None for operand in operands):
        return None
    names = [name for name in node.input if name]
    (output,) = ReferenceEvaluator(node).run(None, {name: known[name] for name in names})
    result = np.asarray(output)
    return result if result.dtype.kind in "iub" and _is_small(result.shape) else None


def _is_small(shape: Any) -> bool:
    return int(np.prod(shape, dtype=np.int64)) <= MAX_ELEMENTS
