"""How much a graph multiplies."""

from __future__ import annotations

import math

import onnx

from embedpack.pack.folder import Pack


def product_weights(pack: Pack, graph: str) -> int:
    """Values of all matrices that int8 products of a graph read."""
    model = onnx.load(str(pack.path(graph)), load_external_data=False)
    shapes = {item.name: item.dims for item in model.graph.initializer}
    read = [node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    return sum(math.prod(shapes[name]) for name in read)
