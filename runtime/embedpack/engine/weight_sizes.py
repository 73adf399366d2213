"""What a graph file says about its weights: how many bytes each kind of operator reads.

An ONNX file is a protocol buffer. Only the few fields that are needed are looked at; everything else is skipped. The
numbers of the fields are those of onnx.proto3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from embedpack.errors import PackError

# Products keep an arranged copy of their weights in memory; others read them where they are mapped.
PRODUCTS = frozenset({"MatMul", "Gemm", "MatMulInteger", "MatMulIntegerToFloat"})
BLOCK_PRODUCT = "MatMulNBits"
# Holds the scores of every token with every other; the others that the graphs use do not.
SCORING, HEADS = "Attention", "q_num_heads"

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_KIND, NODE_ATTRIBUTE = 1, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER = 1, 3
TENSOR_DIMENSIONS, TENSOR_NAME, TENSOR_EXTERNAL = 1, 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2

Field = tuple[int, int | memoryview]


@dataclass(frozen=True)
class WeightSizes:
    """Bytes of the weights outside a graph's file, by what reads them.

    Attributes:
        matmul_bytes: read by matrix products.
        nbits_matmul_bytes: read by products of blocks of 4 bits.
        other_bytes: tables, norms, biases.
        widest: inputs plus outputs of the widest product; 0: there is none.
        materialized_score_heads: most heads of an attention that holds all of its scores; 0: there is none.
    """

    matmul_bytes: int
    nbits_matmul_bytes: int
    other_bytes: int
    widest: int
    materialized_score_heads: int

    @property
    def can_be_saved(self) -> bool:
        """Whether the copies that products read can be saved with the graph.

        onnxruntime 1.31 saves only a part of what products of blocks read: loaded again, they give wrong numbers or
        crash.
        """
        return self.nbits_matmul_bytes == 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.matmul_bytes + self.nbits_matmul_bytes + self.other_bytes


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]
    heads: int


@dataclass(frozen=True)
class _Tensor:
    name: str
    dimensions: tuple[int, ...]
    outside: int


def read_weight_sizes(content: bytes, where: str) -> WeightSizes:
    """Read a graph file.

    Args:
        content: of the file.
        where: its name, for the message.

    Raises:
        PackError: this is no ONNX file.
    """
    try:
        (graph,) = (value for number, value in _fields(memoryview(content)) if number == MODEL_GRAPH)
        parts = [(number, _block(value)) for number, value in _fields(_block(graph))
                 if number in (GRAPH_NODE, GRAPH_INITIALIZER)]  # fmt: skip
        nodes = [_node(value) for number, value in parts if number == GRAPH_NODE]
        tensors = [_tensor(value) for number, value in parts if number == GRAPH_INITIALIZER]
    except (IndexError, KeyError, ValueError) as cause:
        raise PackError(f"{where}: not an ONNX graph; copy the pack again") from cause
    return _sorted(tensors, nodes)


def _sorted(tensors: list[_Tensor], nodes: list[_Node]) -> WeightSizes:
    """The bytes of the tensors by the kind of the operator that reads each."""
    readers = {name: node.kind for node in nodes for name in node.inputs}
    bytes_of = dict.fromkeys(("matmul_bytes", "nbits_matmul_bytes", "other_bytes"), 0)
    widest = 0
    for tensor in tensors:
        reader = readers.get(tensor.name, "")
        kind = "other_bytes"
        if reader in PRODUCTS:
            kind = "matmul_bytes"
        elif reader == BLOCK_PRODUCT:
            kind = "nbits_matmul_bytes"
        bytes_of[kind] += tensor.outside
        if kind == "matmul_bytes" and len(tensor.dimensions) == 2:
            widest = max(widest, sum(tensor.dimensions))
        elif kind == "nbits_matmul_bytes" and len(tensor.dimensions) == 3:
            # [out, blocks, bytes of a block]: two values a byte.
            widest = max(widest, tensor.dimensions[0] + 2 * math.prod(tensor.dimensions[1:]))
    return WeightSizes(
        **bytes_of, widest=widest, materialized_score_heads=max((node.heads for node in nodes), default=0)
    )


def _node(content: memoryview) -> _Node:
    parts = list(_fields(content))
    kind = next((_text(value) for number, value in parts if number == NODE_KIND), "")
    inputs = tuple(_text(value) for number, value in parts if number == NODE_INPUT)
    heads = 0
    if kind == SCORING:
        attributes = [dict(_fields(_block(value))) for number, value in parts if number == NODE_ATTRIBUTE]
        found = [item[ATTRIBUTE_INTEGER] for item in attributes if _text(item[ATTRIBUTE_NAME]) == HEADS]
        heads = next((value for value in found if isinstance(value, int)), 0)
    return _Node(kind, inputs, heads)


def _tensor(content: memoryview) -> _Tensor:
    name, dimensions, outside = "", list[int](), 0
    for number, value in _fields(content):
        if number == TENSOR_NAME:
            name = _text(value)
        elif number == TENSOR_DIMENSIONS:
            dimensions += [value] if isinstance(value, int) else _packed(value)
        elif number == TENSOR_EXTERNAL:
            entry = {key: _text(text) for key, text in _fields(_block(value))}
            if entry.get(ENTRY_KEY) == "length":
                outside = int(entry[ENTRY_VALUE])
    return _Tensor(name, tuple(dimensions), outside)


def _fields(content: memoryview) -> Iterator[Field]:
    """Numbers and values of the fields of a message: integers, or the bytes of texts, messages and lists."""
    place = 0
    while place < len(content):
        key, place = _number(content, place)
        kind = key & 7
        if kind == 0:
            value, place = _number(content, place)
            yield key >> 3, value
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            size, place = _number(content, place)
            if place + size > len(content):
                raise ValueError("a field ends behind its message")
            yield key >> 3, content[place : place + size]
            place += size
        else:
            raise ValueError(f"field of kind {kind}")


def _number(content: memoryview, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and where it ends."""
    byte = content[place]
    if byte < 128:
        return byte, place + 1
    found = shift = 0
    while byte >= 128:
        found |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        byte = content[place]
    return found | byte << shift, place + 1


def _packed(content: memoryview) -> list[int]:
    place, found = 0, []
    while place < len(content):
        value, place = _number(content, place)
        found.append(value)
    return found


def _block(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_block(value)).decode()
