"""Size of the products of a graph."""

from __future__ import annotations

import math

import onnx

from embedpack.pack.folder import Pack


def product_weights(pack: Pack, graph: str) -> int:
    """Number of values of all weight matrices in int8 products of a graph."""
    model = onnx.load(str(pack.path(graph)), load_external_data=False)
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    return sum(math.prod(shapes[name]) for name in names)
