"""Graphs of a node or two, run by onnxruntime: results of its kernels for packed weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

Array = npt.NDArray[Any]


def run_model(model: bytes | str, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs of a model (its bytes or its path), on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(result) for result in session.run(list(outputs), dict(feeds))]


def run_node(
    kind: str, inputs: Mapping[str, Array], fed: str, attributes: Mapping[str, int], dtype: ir.DataType
) -> Array:
    """The one output of a com.microsoft node whose inputs are weights, all but the one that is `fed`."""
    values = {}
    for name, array in inputs.items():
        tensor = ir.tensor(array, name=name)
        constant = None if name == fed else tensor
        values[name] = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=constant
        )
    node = ir.node(kind, list(values.values()), attributes=dict(attributes), domain="com.microsoft", name="node")
    result = node.outputs[0]
    result.name, result.type = "result", ir.TensorType(dtype)
    graph = ir.Graph(
        [values[fed]],
        [result],
        nodes=[node],
        initializers=[value for name, value in values.items() if name != fed],
        opset_imports={"": 23, "com.microsoft": 1},
        name="probe",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return run_model(model, ["result"], {fed: inputs[fed]})[0]
