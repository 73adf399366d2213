"""A check for operators and types that the exporter refuses to write: correct, but slow on CPUs, or unsafe on GPUs.

onnxruntime has several kernels for the same product and chooses by types and attributes. Some are slower than float32,
and loading a graph gives no warning. On GPUs, float16 outside of products can exceed its range without a sign of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from embedpack.errors import PackError
from embedpack.pack.variants import Device

INTEGER_PRODUCTS = frozenset({"MatMulInteger", "MatMulIntegerToFloat"})
ACTIVATIONS, WEIGHTS = 0, 1
# Operators that pass float16 on or cast it, and compute nothing.
MOVES = frozenset({"Cast", "Gather", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Concat", "Split"})
# Operators of float16 on GPUs, whose ranges the exporter measures.
HALF_PRODUCTS = frozenset({"MatMul", "MatMulNBits", "GroupQueryAttention"})
FAST_BLOCKS = 4

Types = Mapping[ir.Value, ir.DataType]
Rule = Callable[[ir.Node, Types], bool]


def check_forms(model: ir.Model, path: Path, device: Device = "cpu") -> None:
    """Raise PackError with the name of a node in a slow or unsafe form, and the remedy; `path` is the graph's file."""
    types = dict(_element_types(model.graph))
    for node in model.graph.all_nodes():
        for text, rule in {**RULES, **RULES_OF_DEVICES[device]}.items():
            if rule(node, types):
                raise PackError(f"{path.name}: node {node.name!r} ({node.op_type}): {text}")


def _unsigned_weights(node: ir.Node, types: Types) -> bool:
    return node.op_type in INTEGER_PRODUCTS and _type(node, WEIGHTS, types) == ir.DataType.UINT8


def _signed_activations(node: ir.Node, types: Types) -> bool:
    return node.op_type in INTEGER_PRODUCTS and _type(node, ACTIVATIONS, types) == ir.DataType.INT8


def _slow_blocks(node: ir.Node, types: Types) -> bool:
    if node.op_type != "MatMulNBits" or _integer(node, "bits", 4) != 8:
        return False
    return _integer(node, "accuracy_level", 0) != FAST_BLOCKS


def _half(node: ir.Node, types: Types) -> bool:
    return node.op_type not in MOVES and any(
        value is not None and types.get(value) == ir.DataType.FLOAT16 for value in node.inputs
    )


def _half_beyond_products(node: ir.Node, types: Types) -> bool:
    return node.op_type not in HALF_PRODUCTS and _half(node, types)


def _float_attention(node: ir.Node, types: Types) -> bool:
    return node.op_type == "GroupQueryAttention" and _type(node, 0, types) == ir.DataType.FLOAT


def _block_table(node: ir.Node, types: Types) -> bool:
    return node.op_type == "GatherBlockQuantized"


def _skip_norm(node: ir.Node, types: Types) -> bool:
    return node.op_type == "SkipLayerNormalization"


RULES: Mapping[str, Rule] = {
    "uint8 weights (u8 x u8) take a slow kernel; write int8 weights": _unsigned_weights,
    "int8 activations (s8 x s8) take a slow kernel; quantize activations to uint8": _signed_activations,
    "products of 8-bit blocks without accuracy_level 4 are slower than float32; set it": _slow_blocks,
    "it is slower on CPUs than Add and LayerNormalization; write these": _skip_norm,
}
RULES_OF_DEVICES: Mapping[Device, Mapping[str, Rule]] = {
    "cpu": {"CPUs compute float16 as float32, with casts around it; cast it to float32 once": _half},
    "cuda": {
        "float16 is for products alone, others may exceed its range; cast it to float32": _half_beyond_products,
        "it has no kernel for float32 on GPUs; cast its inputs to float16": _float_attention,
        "it computes other values on GPUs than on CPUs; read int8 rows with Gather": _block_table,
    },
}


def _element_types(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.DataType]]:
    """Element types of inputs and initializers, and of all other values where they can be inferred."""
    types: dict[ir.Value, ir.DataType] = {}
    for value in (*graph.inputs, *graph.initializers.values()):
        if value.dtype is not None:
            types[value] = value.dtype
    for node in graph.all_nodes():
        inferred = _result_type(node, types)
        for value in node.outputs:
            dtype = value.dtype if value.dtype is not None else inferred
            if dtype is not None:
                types[value] = dtype
    yield from types.items()


def _result_type(node: ir.Node, types: Types) -> ir.DataType | None:
    """Element type of a node's first output."""
    if node.op_type == "Cast":
        return ir.DataType(_integer(node, "to", 0))
    if node.op_type == "QuantizeLinear":
        stated = _integer(node, "output_dtype", 0)
        return ir.DataType(stated) if stated else _type(node, 2, types) or ir.DataType.UINT8
    if node.op_type == "DynamicQuantizeLinear":
        return ir.DataType.UINT8
    # The first input of these operators is quantized or a condition; another one has the type of the result.
    index = {"DequantizeLinear": 1, "MatMulIntegerToFloat": 2, "GatherBlockQuantized": 2, "Where": 1}.get(
        node.op_type, 0
    )
    return _type(node, index, types)


def _type(node: ir.Node, index: int, types: Types) -> ir.DataType | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else types.get(value)


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()
