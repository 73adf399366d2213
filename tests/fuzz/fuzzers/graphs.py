"""Changed graphs in a pack whose digests fit: bytes, nodes, attributes and initializers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from embedpack import Embedder
from tests.fuzz.mutations import NUMBERS, mutate_bytes
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import PackCopy, vectors_of
from tests.helpers.tiny_pack import TINY_PACK

OPERATORS = ("Loop", "If", "Scan", "RandomNormal", "Add", "MatMul", "Reshape", "Gather", "Expand", "Range", "Sqrt", "")
LOCATIONS = ("../pack.json", "/etc/passwd", "/proc/self/mem", "tokenizer.json", "weights/none.bin", "")


def prepare(folder: Path) -> Attempt:
    """Tries with changed graphs of the tiny pack."""
    pack = PackCopy(TINY_PACK, folder / "pack")

    def attempt(rng: random.Random) -> None:
        weights = rng.choice(("fp32", "int8", "int4"))
        name = f"default-{weights}.onnx"
        content = mutate_bytes(pack.read(name), rng) if rng.random() < 0.5 else mutate_model(pack.read(name), rng)
        manifest = pack.manifest
        if rng.random() < 0.5:
            # A hostile pack states the operators that its graph has.
            manifest["variants"][f"default-{weights}"]["operators"] = operators_of(content)
        with pack.replaced({name: content}, manifest) as changed:
            first = vectors_of(Embedder(changed, weights=weights, threads=1))
            again = vectors_of(Embedder(changed, weights=weights, threads=1))
            check(bool(np.array_equal(first, again)), "two runs give different vectors")

    return attempt


def operators_of(content: bytes) -> list[str]:
    """Operators of a graph, none if it cannot be read."""
    try:
        nodes = onnx.load_model_from_string(content).graph.node
        return sorted({f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in nodes})
    except Exception:  # errors of protobuf, and names that are not UTF-8
        return []


def mutate_model(content: bytes, rng: random.Random) -> bytes:
    """A model with some nodes, attributes and initializers changed."""
    model = onnx.load_model_from_string(content)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(CHANGES)(model.graph, rng)
    return model.SerializeToString()


def _rename_operator(graph: onnx.GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).op_type = rng.choice(OPERATORS)


def _swap_inputs(graph: onnx.GraphProto, rng: random.Random) -> None:
    names = [name for node in graph.node for name in node.input]
    node = rng.choice([node for node in graph.node if node.input])
    node.input[rng.randrange(len(node.input))] = rng.choice((*names, "", "nowhere"))


def _change_attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    attribute = rng.choice([attribute for node in graph.node for attribute in node.attribute])
    attribute.i, attribute.f = rng.choice(NUMBERS[:-2]), rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))


def _change_constant(graph: onnx.GraphProto, rng: random.Random) -> None:
    tensor = rng.choice([each for each in graph.initializer if not each.external_data])
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[: rng.randint(1, 4)] = np.array(rng.choice((0, 1, -1, 100))).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _change_shape(graph: onnx.GraphProto, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    if tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS[:-2])


def _change_location(graph: onnx.GraphProto, rng: random.Random) -> None:
    entry = rng.choice([entry for tensor in graph.initializer for entry in tensor.external_data])
    entry.value = rng.choice(LOCATIONS if entry.key == "location" else [str(number) for number in (-1, *NUMBERS)])


def _remove_node(graph: onnx.GraphProto, rng: random.Random) -> None:
    graph.node.pop(rng.randrange(len(graph.node)))


def _endless_loop(graph: onnx.GraphProto, rng: random.Random) -> None:
    limit = helper.make_tensor("limit", onnx.TensorProto.INT64, [], [2**62])
    body = helper.make_graph([], "body", [], [])
    graph.initializer.append(limit)
    graph.node.insert(0, helper.make_node("Loop", ["limit"], ["unused"], body=body))


CHANGES: tuple[Callable[[onnx.GraphProto, random.Random], None], ...] = (
    _rename_operator, _swap_inputs, _change_attribute, _change_constant, _change_shape, _change_location, _remove_node,
    _endless_loop,
)  # fmt: skip
FUZZER = Fuzzer("graphs", 1800, prepare)
