"""Types and shapes of all values of a graph for inputs of given shapes, without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from benchmarks.roofline.shape_folding import Shape, fold_shapes

# ONNX operators whose outputs have the shapes and types of operators of onnxruntime, and the inputs that they take.
SAME_SHAPES: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "MatMulIntegerToFloat": ("MatMulInteger", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "MultiHeadAttention": ("Identity", (2,)),
    "SkipLayerNormalization": ("Identity", (0,)),
    "SkipSimplifiedLayerNormalization": ("Identity", (0,)),
    "SimplifiedLayerNormalization": ("Identity", (0,)),
    "RotaryEmbedding": ("Identity", (0,)),
    "BiasGelu": ("Identity", (0,)),
    "FastGelu": ("Identity", (0,)),
    "QuickGelu": ("Identity", (0,)),
}
# Outputs of these are float32, unlike those of the ONNX operator.
FLOAT_OUTPUTS = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
HALF_BYTE_TYPES = (TensorProto.INT4, TensorProto.UINT4)


@dataclass(frozen=True)
class Value:
    """Element type (of `TensorProto`) and shape of a value; constant ones do not depend on the inputs."""

    type: int
    shape: Shape
    constant: bool

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Size in bytes."""
        return self.size * (
            0.5 if self.type in HALF_BYTE_TYPES else helper.tensor_dtype_to_np_dtype(self.type).itemsize
        )


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes of a graph, those of its subgraphs after the node that has them."""
    for node in graph.node:
        yield node
        for part in subgraphs(node):
            yield from nodes_of(part)


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Graphs among the attributes of a node."""
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def values_of(model: ModelProto, inputs: Mapping[str, Shape]) -> dict[str, Value]:
    """Values by name; those whose shape cannot be inferred are left out.

    Args:
        model: a graph; its weights need not be loaded.
        inputs: shapes of the inputs; an optional input that is not among them has the shape of its default.
    """
    constants = _constants(model.graph)
    values = _folded(model, inputs, constants)[1]
    values |= {name: value for name, value in constants.items() if name not in inputs}
    return _with_constants(model.graph, values)


def with_branches_taken(model: ModelProto, inputs: Mapping[str, Shape]) -> ModelProto:
    """The model with the nodes of the branch that is taken in place of each node with branches, where it is known.

    Arguments are those of `values_of`.
    """
    folded = _folded(model, inputs, _constants(model.graph))[0].graph
    known = {tensor.name: tensor for tensor in folded.initializer}
    taken = ModelProto()
    taken.CopyFrom(model)
    del taken.graph.node[:]
    for node in model.graph.node:
        if node.op_type == "If" and node.input[0] in known:
            name = "then_branch" if numpy_helper.to_array(known[node.input[0]]).all() else "else_branch"
            (branch,) = (attribute.g for attribute in node.attribute if attribute.name == name)
            results = [
                helper.make_node("Identity", [inner.name], [outer])
                for inner, outer in zip(branch.output, node.output, strict=True)
            ]
            taken.graph.node.extend([*branch.node, *results])
        else:
            taken.graph.node.append(node)
    return taken


def _constants(graph: GraphProto) -> dict[str, Value]:
    return {tensor.name: Value(tensor.data_type, tuple(tensor.dims), True) for tensor in _initializers(graph)}


def _folded(
    model: ModelProto, inputs: Mapping[str, Shape], constants: Mapping[str, Value]
) -> tuple[ModelProto, dict[str, Value]]:
    """The model with the results of all nodes that compute shapes, and its values."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    _fix_inputs(fixed.graph, {**{name: value.shape for name, value in constants.items()}, **inputs})
    _replace_operators(fixed.graph, constants)
    values = _inferred(fixed)
    # Shapes that are computed from shapes: each round finds those that depend on the round before.
    while fold_shapes(fixed.graph, {name: value.shape for name, value in values.items()}):
        values = _inferred(fixed)
    return fixed, values


def _inferred(model: ModelProto) -> dict[str, Value]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = {info.name: value for info in _infos(inferred.graph) if (value := _value(info)) is not None}
    folded = {tensor.name: Value(tensor.data_type, tuple(tensor.dims), False) for tensor in model.graph.initializer}
    return values | folded


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for part in subgraphs(node):
            yield from _initializers(part)


def _fix_inputs(graph: GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Replace symbolic axes of the inputs by sizes, and remove all shapes that were inferred before."""
    for info in graph.input:
        info.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
        for size in shapes[info.name]:
            info.type.tensor_type.shape.dim.add(dim_value=size)
    del graph.output[:]
    del graph.value_info[:]


def _replace_operators(graph: GraphProto, constants: Mapping[str, Value]) -> None:
    """Replace operators of onnxruntime by operators of ONNX whose outputs have the same shapes and types."""
    nodes: list[NodeProto] = []
    for node in graph.node:
        for part in subgraphs(node):
            del part.value_info[:]
            _replace_operators(part, constants)
        if node.op_type == "MatMulNBits":
            nodes.append(_blocked_product(node, graph))
        elif node.op_type == "GatherBlockQuantized":
            nodes.append(_blocked_gather(node, graph, constants[node.input[0]]))
        elif node.op_type == "GroupQueryAttention":
            nodes += _grouped_attention(node, graph)
        elif node.domain and node.op_type in SAME_SHAPES:
            nodes += _same_shapes(node, *SAME_SHAPES[node.op_type])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _same_shapes(node: NodeProto, kind: str, inputs: tuple[int, ...]) -> list[NodeProto]:
    output, operands = node.output[0], [node.input[index] for index in inputs]
    if node.op_type not in FLOAT_OUTPUTS:
        return [helper.make_node(kind, operands, [output])]
    return [
        helper.make_node(kind, operands, [f"{output}.uncast"]),
        helper.make_node("Cast", [f"{output}.uncast"], [output], to=TensorProto.FLOAT),
    ]


def _grouped_attention(node: NodeProto, graph: GraphProto) -> list[NodeProto]:
    """Output, and the earlier and own keys and values, [batch, heads, tokens, size]."""
    (heads,) = (attribute.i for attribute in node.attribute if attribute.name == "kv_num_heads")
    split = f"{node.output[0]}.split"
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, heads, -1]), split))
    nodes = [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
    for own, earlier, output in zip(node.input[1:3], node.input[3:5], node.output[1:], strict=True):
        rows, by_head = f"{output}.rows", f"{output}.own"
        nodes.append(helper.make_node("Reshape", [own, split], [rows]))
        nodes.append(helper.make_node("Transpose", [rows], [by_head], perm=[0, 2, 1, 3]))
        parts = [earlier, by_head] if earlier else [by_head]
        nodes.append(helper.make_node("Concat", parts, [output], axis=2))
    return nodes


def _blocked_product(node: NodeProto, graph: GraphProto) -> NodeProto:
    """Product with a matrix [K, N] of float32 in place of packed weights."""
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    matrix = _add_unpacked(graph, f"{node.output[0]}.matrix", (sizes["K"], sizes["N"]))
    return helper.make_node("MatMul", [node.input[0], matrix], [node.output[0]])


def _blocked_gather(node: NodeProto, graph: GraphProto, packed: Value) -> NodeProto:
    """Rows of a table of float32 in place of a packed one."""
    bits = {attribute.name: attribute.i for attribute in node.attribute}.get("bits", 4)
    in_a_value = 8 // bits if packed.type == TensorProto.UINT8 else 1
    shape = (*packed.shape[:-1], packed.shape[-1] * in_a_value)
    return helper.make_node(
        "Gather", [_add_unpacked(graph, f"{node.output[0]}.table", shape), node.input[1]], node.output
    )


def _add_unpacked(graph: GraphProto, name: str, shape: Shape) -> str:
    """Add an initializer of float32 without any data, and return its name."""
    location = TensorProto.EXTERNAL
    graph.initializer.append(TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=location))
    return name


def _infos(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from (*graph.input, *graph.value_info, *graph.output)
    for node in graph.node:
        for part in subgraphs(node):
            yield from _infos(part)


def _value(info: ValueInfoProto) -> Value | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return Value(tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim), False)


def _with_constants(graph: GraphProto, values: dict[str, Value]) -> dict[str, Value]:
    """Mark the outputs of nodes whose inputs are all constant."""
    for node in nodes_of(graph):
        inputs = [values.get(name) for name in node.input if name]
        if all(value is not None and value.constant for value in inputs) and not subgraphs(node):
            for name in node.output:
                if name in values:
                    values[name] = Value(values[name].type, values[name].shape, True)
    return values
