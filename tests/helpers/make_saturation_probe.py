"""Prints the probe of embedpack.host.int8_support: python -m tests.helpers.make_saturation_probe."""

from __future__ import annotations

import base64
import textwrap

import numpy as np
import onnx_ir as ir


def probe() -> bytes:
    row = ir.Value(name="row", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([1, 16]))
    weight = ir.tensor(np.full((16, 16), 127, np.int8), name="weight")
    value = ir.Value(name="weight", type=ir.TensorType(weight.dtype), shape=ir.Shape([16, 16]), const_value=weight)
    node = ir.node("MatMulInteger", [row, value], name="product")
    sums = node.outputs[0]
    sums.name, sums.type, sums.shape = "sums", ir.TensorType(ir.DataType.INT32), ir.Shape([1, 16])
    graph = ir.Graph([row], [sums], nodes=[node], initializers=[value], opset_imports={"": 23}, name="probe")
    return ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString(deterministic=True)


if __name__ == "__main__":
    for line in textwrap.wrap(base64.b64encode(probe()).decode(), 100):
        print(f'    "{line}"')
