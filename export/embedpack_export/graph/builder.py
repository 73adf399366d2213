"""A builder of ONNX graphs, node by node, on onnx-ir."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from embedpack_export.graph.external_data import WeightStore

OPSET = 23
IR_VERSION = 10
CONTRIB = "com.microsoft"
OPSETS = {"": OPSET, CONTRIB: 1}
# Largest tensor, in bytes, that is stored in the graph file itself.
INLINE_BYTES = 256

Attribute = int | float | str | Sequence[int]


class GraphBuilder:
    """Inputs, nodes, weights and outputs of one graph.

    Weights are written to the store at once, so the builder holds no large data.
    """

    def __init__(self, name: str, store: WeightStore) -> None:
        self._name = name
        self._store = store
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._count = 0  # nodes so far, those of branches included
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare an input; symbolic dimensions are strings."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    def optional_input(self, name: str, shape: Sequence[int | str], default: npt.NDArray[Any]) -> ir.Value:
        """Declare an input of the type of its default; symbolic dimensions may have another size there."""
        tensor = ir.tensor(default, name=name)
        value = self.input(name, tensor.dtype, shape)
        value.const_value = tensor
        self._initializers[name] = value
        return value

    def op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output and return the output."""
        return self.ops(kind, inputs, attributes, domain=domain, outputs=1)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        domain: str = "",
        outputs: int,
    ) -> tuple[ir.Value, ...]:
        """Append a node and return all its outputs."""
        node = ir.node(kind, list(inputs), attributes=dict(attributes or {}), domain=domain, num_outputs=outputs)
        self._append(node)
        return tuple(node.outputs)

    def branch(
        self,
        condition: ir.Value,
        then: Callable[[], ir.Value],
        otherwise: Callable[[], ir.Value],
        shape: Sequence[int | str],
    ) -> ir.Value:
        """Append a node with the value of `then` if the condition, bool [1], is true, else of `otherwise`.

        Values are float32 of this shape. Both may read all values so far; of the values that they append, only the
        result can be read later.
        """
        node = ir.node("If", [condition])
        for name, make in (("then_branch", then), ("else_branch", otherwise)):
            before, self._nodes = self._nodes, []
            result = make()
            nodes, self._nodes = self._nodes, before
            # Without a known shape, onnxruntime reuses no memory later in the graph, and takes seconds to load it.
            result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
            node.attributes[name] = ir.AttrGraph(name, ir.Graph([], [result], nodes=nodes, name=name))
        self._append(node)
        return node.outputs[0]

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> ir.Value:
        """A small constant; equal constants are stored once."""
        array = np.asarray(values, dtype)
        digest = hashlib.sha256(array.tobytes() + str((array.dtype, array.shape)).encode()).hexdigest()
        return self._initializer(f"constant.{digest[:16]}", ir.tensor(array))

    def weight(
        self, name: str, group: str, chunks: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike, shape: tuple[int, ...]
    ) -> ir.Value:
        """A weight, streamed to the store (see `WeightStore.add`); up to INLINE_BYTES it is in the graph file."""
        if int(np.prod(shape)) * np.dtype(dtype).itemsize <= INLINE_BYTES:
            array = np.concatenate([np.asarray(chunk, dtype).reshape(-1) for chunk in chunks]).reshape(shape)
            return self._initializer(name, ir.tensor(array, name=name))
        return self._initializer(name, self._store.add(name, group, chunks, dtype, shape))

    def vector(self, name: str, values: npt.NDArray[np.float32], group: str = "shared") -> ir.Value:
        """A bias or norm weight; the group is "shared" if it is the same in all weights formats."""
        return self.weight(name, group, [values], np.float32, values.shape)

    @property
    def nodes(self) -> Sequence[ir.Node]:
        """All nodes, in topological order."""
        return self._nodes

    def move_to_end(self, nodes: Collection[ir.Node]) -> None:
        """Put nodes behind all others, in the order that they have."""
        self._nodes = [node for node in self._nodes if node not in nodes] + [
            node for node in self._nodes if node in nodes
        ]

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Declare a node's output as an output of the graph under a public name."""
        value.name = name
        value.type = ir.TensorType(dtype)
        value.shape = ir.Shape(shape)
        self._outputs.append(value)

    def part(self, first: ir.Value | None, last: Sequence[ir.Value]) -> ir.Model:
        """The part of the graph that computes `last` from `first` and the graph's inputs, as a model.

        Its outputs are named 0, 1, ... It has the inputs of the graph, except optional ones that it does not read, and
        the same nodes and weights as the graph.
        """
        nodes, values = _ancestors(first, last)
        graph = onnx.GraphProto(name=f"{self._name}.part")
        graph.node.extend(ir.to_proto(node) for node in nodes)
        # Outputs are those of Identity nodes, since a value of `last` may be an input of the part.
        for index, value in enumerate(last):
            graph.node.append(onnx.helper.make_node("Identity", [str(value.name)], [str(index)]))
            graph.output.append(onnx.helper.make_tensor_value_info(str(index), onnx.TensorProto.FLOAT, None))
        inputs = [value for value in self._inputs if value in values or value.name not in self._initializers]
        graph.input.extend(ir.to_proto(value) for value in inputs)
        if first is not None:
            graph.input.append(onnx.helper.make_tensor_value_info(str(first.name), onnx.TensorProto.FLOAT, None))
        used = [value for value in self._initializers.values() if value in values]
        graph.initializer.extend(ir.to_proto(value.const_value) for value in used if value.const_value is not None)
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION))

    def build(self) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports=OPSETS,
            name=self._name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="embedpack")

    def _append(self, node: ir.Node) -> None:
        node.name = f"{self._count:04d}.{node.op_type}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}.{index}" if index else node.name
        self._count += 1
        self._nodes.append(node)

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name not in self._initializers:
            tensor.name = name
            self._initializers[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
            )
        return self._initializers[name]


def _ancestors(first: ir.Value | None, last: Sequence[ir.Value]) -> tuple[list[ir.Node], set[ir.Value]]:
    """Nodes that `last` depends on, up to `first`, in topological order, and the inputs of these nodes."""
    nodes: dict[ir.Node, None] = {}
    values: set[ir.Value] = set()
    waiting: list[tuple[ir.Value, bool]] = [(value, False) for value in last]
    while waiting:
        value, entered = waiting.pop()
        producer = value.producer()
        if producer is None or value is first or producer in nodes:
            continue
        if entered:
            nodes[producer] = None
            continue
        inputs = _read(producer)
        values.update(inputs)
        waiting += [(value, True), *((value, False) for value in inputs)]
    return list(nodes), values


def _read(node: ir.Node) -> list[ir.Value]:
    """Values that a node reads, also in its branches, from outside of it."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            inside = list(attribute.as_graph())
            made = {value for each in inside for value in each.outputs}
            values += [value for each in inside for value in _read(each) if value not in made]
    return values
