"""A twin of an int8 graph for CPUs whose u8 x s8 products overflow.

x86 without VNNI multiplies u8 x s8 into pairs of 16 bits, which saturate; u8 x u8 takes another, exact way there. The
twin moves every int8 weight to uint8 with zero point 128. The move is made of operators on constants, which
onnxruntime folds when it loads the graph: both graphs use the same weights file and give the same numbers. The cast
keeps the bits, and flipping the highest of them adds 128.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

ZERO_POINT = 128
# Inputs of com.microsoft MatMulIntegerToFloat.
WEIGHT, WEIGHT_ZERO_POINT = 1, 5


def unsigned_weights(model: ir.Model) -> None:
    """Change every MatMulIntegerToFloat of the model, in place.

    Requires: int8 weights without a zero point. Ensures: uint8 weights with zero point 128.
    """
    graph = model.graph
    zero_point = _constant(graph, "weights.zero_point", np.array(ZERO_POINT, np.uint8))
    for node in [node for node in graph if node.op_type == "MatMulIntegerToFloat"]:
        weight = node.inputs[WEIGHT]
        assert weight is not None
        assert weight.dtype == ir.DataType.INT8
        assert len(node.inputs) <= WEIGHT_ZERO_POINT or node.inputs[WEIGHT_ZERO_POINT] is None
        bits = ir.node("Cast", [weight], {"to": int(ir.DataType.UINT8)}, name=f"{node.name}.bits")
        moved = ir.node("BitwiseXor", [bits.outputs[0], zero_point], name=f"{node.name}.moved")
        for new in (bits, moved):
            new.outputs[0].name = f"{new.name}.output"
        graph.insert_before(node, [bits, moved])
        node.resize_inputs(max(len(node.inputs), WEIGHT_ZERO_POINT + 1))
        node.replace_input_with(WEIGHT, moved.outputs[0])
        node.replace_input_with(WEIGHT_ZERO_POINT, zero_point)


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
