"""Sizes of a graph's weights by the operator that reads them, from the ONNX file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedpack.engine import onnx_fields
from embedpack.errors import PackError
from embedpack.storage.protobuf import as_message, as_text, read_fields, read_packed

# Operators that keep a packed copy of their weights in memory; others read mapped weights.
KINDS = dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "MatMulIntegerToFloat"), "matmul_bytes")
KINDS["MatMulNBits"] = "nbits_matmul_bytes"
# The only attention operator of our graphs that materializes scores on a CPU; a GPU may do so in both. Its queries are
# reshaped if they are those of blocks, which attend to near tokens alone; else the scores are those of every token with
# every other.
MATERIALIZED_ATTENTION = "Attention"
HEADS_ATTRIBUTES = {MATERIALIZED_ATTENTION: "q_num_heads", "MultiHeadAttention": "num_heads"}
BLOCKS = "Reshape"


@dataclass(frozen=True)
class WeightSizes:
    """Sizes of a graph's external weights in bytes, by operator.

    Attributes:
        other_bytes: embedding tables, norms and biases.
        widest: inputs plus outputs of the widest matrix product; 0: no matrix products.
        materialized_score_heads: largest number of heads of an attention that materializes its scores; 0: none does.
        block_score_heads: the same for scores of long texts in blocks of near tokens.
        gpu_score_heads: the same for an attention that materializes its scores on a GPU alone.
    """

    matmul_bytes: int
    nbits_matmul_bytes: int
    other_bytes: int
    widest: int
    materialized_score_heads: int
    block_score_heads: int = 0
    gpu_score_heads: int = 0

    @property
    def can_be_saved(self) -> bool:
        """True if the graph can be saved prepacked.

        onnxruntime 1.31 saves only a part of packed 4-bit blocks: the loaded graph computes wrong numbers or crashes.
        """
        return self.nbits_matmul_bytes == 0

    @property
    def total(self) -> int:
        """Size of all weights."""
        return self.matmul_bytes + self.nbits_matmul_bytes + self.other_bytes


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    heads: int


@dataclass(frozen=True)
class _Tensor:
    name: str
    dimensions: tuple[int, ...]
    external_bytes: int


def read_weight_sizes(content: bytes, where: str) -> WeightSizes:
    """Read the sizes of the weights from an ONNX file; PackError, with its name `where`, if it is not one."""
    try:
        (graph,) = (value for number, value in read_fields(memoryview(content)) if number == onnx_fields.MODEL_GRAPH)
        parts = [(number, as_message(value)) for number, value in read_fields(as_message(graph))
                 if number in (onnx_fields.GRAPH_NODE, onnx_fields.GRAPH_INITIALIZER)]  # fmt: skip
        nodes = [_node(value) for number, value in parts if number == onnx_fields.GRAPH_NODE]
        tensors = [_tensor(value) for number, value in parts if number == onnx_fields.GRAPH_INITIALIZER]
    except (IndexError, KeyError, ValueError) as cause:
        raise PackError(f"{where}: not an ONNX graph; copy the pack again") from cause
    return _sum_by_operator(tensors, nodes)


def _sum_by_operator(tensors: list[_Tensor], nodes: list[_Node]) -> WeightSizes:
    readers = {name: node.kind for node in nodes for name in node.inputs}
    bytes_of = dict.fromkeys(("matmul_bytes", "nbits_matmul_bytes", "other_bytes"), 0)
    widest = 0
    for tensor in tensors:
        kind = KINDS.get(readers.get(tensor.name, ""), "other_bytes")
        bytes_of[kind] += tensor.external_bytes
        if kind == "matmul_bytes" and len(tensor.dimensions) == 2:
            widest = max(widest, sum(tensor.dimensions))
        elif kind == "nbits_matmul_bytes" and len(tensor.dimensions) == 3:
            # [out, blocks, bytes of a block]: two values a byte.
            widest = max(widest, tensor.dimensions[0] + 2 * math.prod(tensor.dimensions[1:]))
    blocks = {name for node in nodes if node.kind == BLOCKS for name in node.outputs}
    on_cpu = [node for node in nodes if node.kind == MATERIALIZED_ATTENTION]
    of_blocks = [node.heads for node in on_cpu if node.inputs[:1] and node.inputs[0] in blocks]
    of_all = [node.heads for node in on_cpu if not node.inputs[:1] or node.inputs[0] not in blocks]
    return WeightSizes(
        **bytes_of,
        widest=widest,
        materialized_score_heads=max(of_all, default=0),
        block_score_heads=max(of_blocks, default=0),
        gpu_score_heads=max((node.heads for node in nodes if node.kind != MATERIALIZED_ATTENTION), default=0),
    )


def _node(content: memoryview) -> _Node:
    parts = list(read_fields(content))
    kind = next((as_text(value) for number, value in parts if number == onnx_fields.NODE_OPERATOR), "")
    inputs, outputs = (
        tuple(as_text(value) for number, value in parts if number == field)
        for field in (onnx_fields.NODE_INPUT, onnx_fields.NODE_OUTPUT)
    )
    heads = 0
    if kind in HEADS_ATTRIBUTES:
        attributes = [
            dict(read_fields(as_message(value))) for number, value in parts if number == onnx_fields.NODE_ATTRIBUTE
        ]
        counts = [
            item[onnx_fields.ATTRIBUTE_INTEGER]
            for item in attributes
            if as_text(item[onnx_fields.ATTRIBUTE_NAME]) == HEADS_ATTRIBUTES[kind]
        ]
        heads = next((value for value in counts if isinstance(value, int)), 0)
    return _Node(kind, inputs, outputs, heads)


def _tensor(content: memoryview) -> _Tensor:
    name, dimensions, external_bytes = "", list[int](), 0
    for number, value in read_fields(content):
        if number == onnx_fields.TENSOR_NAME:
            name = as_text(value)
        elif number == onnx_fields.TENSOR_DIMENSIONS:
            dimensions += [value] if isinstance(value, int) else read_packed(value)
        elif number == onnx_fields.TENSOR_EXTERNAL:
            entry = {key: as_text(text) for key, text in read_fields(as_message(value))}
            if entry.get(onnx_fields.ENTRY_KEY) == "length":
                external_bytes = int(entry[onnx_fields.ENTRY_VALUE])
    return _Tensor(name, tuple(dimensions), external_bytes)
