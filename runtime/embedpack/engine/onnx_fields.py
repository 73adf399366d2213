"""Numbers of the ONNX fields that are read from graph files: those of onnx.proto3."""

from __future__ import annotations

MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTION = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR = 1, 2, 3, 4
NODE_ATTRIBUTE, NODE_DOMAIN, NODE_OVERLOAD = 5, 7, 8
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER = 1, 3
# A tensor, and a list of them.
ATTRIBUTE_TENSORS = (5, 10)
ATTRIBUTE_GRAPH = 6
# A graph, a sparse tensor, lists of either, and a reference to an attribute of a function.
ATTRIBUTE_REFUSED = (ATTRIBUTE_GRAPH, 11, 21, 22, 23)
TENSOR_DIMENSIONS, TENSOR_NAME, TENSOR_EXTERNAL = 1, 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
