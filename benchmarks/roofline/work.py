"""Work of a node: multiplications with additions, bytes, elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import NodeProto

from benchmarks.roofline.values import Value

Arithmetic = Literal["int8", "fp32"]
# Outputs of these are views of the input, or shapes.
FREE = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size", "Constant", "If", "Loop")
# Of the first input they read only what they write.
SELECTING = ("Gather", "GatherND", "GatherElements", "Slice", "GatherBlockQuantized")
INT8_PRODUCTS = ("MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")
FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul")
ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
# Level of MatMulNBits at which activations are quantized to int8.
INT8_LEVEL = 4


@dataclass(frozen=True)
class Work:
    """Work of a node.

    Attributes:
        products: number of multiplications with an addition, of `arithmetic`.
        weight_bytes: bytes of constants that are read.
        activation_bytes: bytes of all other values that are read and written.
        elements: number of elements of the largest value that is read or written and not constant.
    """

    arithmetic: Arithmetic | None
    products: int
    weight_bytes: float
    activation_bytes: float
    elements: int


def work_of(node: NodeProto, values: Mapping[str, Value]) -> Work | None:
    """Work of a node; None if the shape of one of its inputs or of its output is not known."""
    names = [name for name in (*node.input, *_outputs(node)) if name]
    if any(name not in values for name in names):
        return None
    if node.op_type in FREE:
        return Work(None, 0, 0.0, 0.0, 0)
    arithmetic, products = _products(node, values)
    written = [values[name] for name in node.output if name in values]
    read = [values[name] for name in node.input if name]
    selected = 0.0
    if node.op_type in SELECTING and read:
        # As many elements as are written, of the type and packing that are read.
        selected = sum(value.size for value in written) * read[0].bytes / max(1, _unpacked_size(node, read[0], values))
        read = read[1:] if node.op_type != "GatherBlockQuantized" else read[1:2]
    constant = [value for value in read if value.constant]
    changing = [value for value in (*read, *written) if not value.constant]
    return Work(
        arithmetic,
        products,
        sum(value.bytes for value in constant),
        selected + sum(value.bytes for value in changing),
        max((value.size for value in changing), default=0),
    )


def _outputs(node: NodeProto) -> Sequence[str]:
    return node.output[:2] if node.op_type == "GroupQueryAttention" else node.output[:1]


def _unpacked_size(node: NodeProto, table: Value, values: Mapping[str, Value]) -> int:
    """Number of elements of a table, of which a packed one holds several in a byte."""
    if node.op_type != "GatherBlockQuantized":
        return table.size
    return table.size // table.shape[-1] * values[node.output[0]].shape[-1]


def _products(node: NodeProto, values: Mapping[str, Value]) -> tuple[Arithmetic | None, int]:
    counts: dict[tuple[str, ...], Callable[[], tuple[Arithmetic, int]]] = {
        INT8_PRODUCTS: lambda: ("int8", _matrix_products(node, values)),
        FLOAT_PRODUCTS: lambda: ("fp32", _matrix_products(node, values)),
        ("MatMulNBits",): lambda: _blocked_products(node, values),
        ATTENTION: lambda: ("fp32", _attention_products(node, values)),
        ("Conv",): lambda: ("fp32", values[node.output[0]].size * math.prod(values[node.input[1]].shape[1:])),
    }
    for kinds, count in counts.items():
        if node.op_type in kinds:
            return count()
    return None, 0


def _matrix_products(node: NodeProto, values: Mapping[str, Value]) -> int:
    left = values[node.input[0]].shape
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return values[node.output[0]].size * (left[-2] if transposed else left[-1])


def _blocked_products(node: NodeProto, values: Mapping[str, Value]) -> tuple[Arithmetic, int]:
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    arithmetic: Arithmetic = "int8" if numbers.get("accuracy_level") == INT8_LEVEL else "fp32"
    return arithmetic, values[node.output[0]].size * numbers["K"]


def _attention_products(node: NodeProto, values: Mapping[str, Value]) -> int:
    """Products of queries with keys and of scores with values; causal ones count in full.

    Queries and outputs are [batch, heads, tokens, size] or [batch, tokens, heads * size].
    """
    queries, keys = values[node.input[0]], values[node.input[1] or node.input[0]]
    if node.op_type == "GroupQueryAttention":
        # Its second output has the earlier keys too.
        keys = values[node.output[1]]
    return (queries.size + values[node.output[0]].size) * keys.shape[-2]
