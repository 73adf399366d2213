"""Vectors and their codes as graph outputs (`embedpack.pack.graph_io`): a graph alone computes finished vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import binary_output, center_input, int8_output
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import inverse_scale
from embedpack_export.graph.builder import GraphBuilder

FLOAT = int(ir.DataType.FLOAT)


@dataclass(frozen=True)
class VectorOutput:
    """A vector output and its codes."""

    name: str  # name of the vector, and prefix of the names of its codes
    axes: tuple[str, ...]  # symbolic axes in front of the dimensions
    dimensions: int
    int8_scale: float | None = None  # scale of int8 codes; None: float32 only, no codes
    # Codebook of binary codes; None: no rotation, the center is an input (`center_input`).
    codebook: Codebook | None = None
    center: Float32 | None = None  # default of that input; None: 0
    normalized: bool = True  # the vector has length 1; else its codes are those of the vector of length 1,
    int8_lengths: bool = False  # or of int8 those of the vector as it is


def has_bits(dimensions: int) -> bool:
    """True if vectors of these dimensions have binary codes, which need whole bytes."""
    return dimensions % 8 == 0


def unit(g: GraphBuilder, vector: ir.Value) -> ir.Value:
    """Normalize to length 1 as torch.nn.functional.normalize does."""
    length = g.op("ReduceL2", [vector, g.constant([-1], np.int64)], {"keepdims": 1})
    return g.op("Div", [vector, g.op("Max", [length, g.constant([1e-12], np.float32)])])


def vector_outputs(g: GraphBuilder, vector: ir.Value, output: VectorOutput) -> None:
    """Declare a vector as an output, and its codes if it has any."""
    axes: list[int | str] = [*output.axes]
    g.output(vector, output.name, ir.DataType.FLOAT, [*axes, output.dimensions])
    if output.int8_scale is None:
        return
    direction = vector if output.normalized else unit(g, vector)
    int8 = _int8(g, vector if output.int8_lengths else direction, output.int8_scale)
    g.output(int8, int8_output(output.name), ir.DataType.INT8, [*axes, output.dimensions])
    if has_bits(output.dimensions):
        packed = _packed(g, _bits(g, direction, output), len(axes))
        g.output(packed, binary_output(output.name), ir.DataType.UINT8, [*axes, output.dimensions // 8])


def _int8(g: GraphBuilder, vector: ir.Value, scale: float) -> ir.Value:
    steps = g.op("Round", [g.op("Mul", [vector, g.constant(inverse_scale(scale), np.float32)])])
    clipped = g.op("Clip", [steps, g.constant(-127, np.float32), g.constant(127, np.float32)])
    return g.op("Cast", [clipped], {"to": int(ir.DataType.INT8)})


def _bits(g: GraphBuilder, vector: ir.Value, output: VectorOutput) -> ir.Value:
    """Booleans: each coordinate of the rotated vector is greater than that of the center."""
    codebook = output.codebook
    if codebook is None:
        default = np.zeros(output.dimensions, np.float32) if output.center is None else output.center
        center = g.optional_input(center_input(output.name), [output.dimensions], default)
        return g.op("Greater", [vector, center])
    blocks = [
        g.weight(f"{output.name}.rotation.{number}", "shared", [block.T], np.float32, block.shape)
        for number, block in enumerate(codebook.rotation)
    ]
    if blocks:
        sizes = g.constant([len(block) for block in codebook.rotation], np.int64)
        parts = g.ops("Split", [vector, sizes], {"axis": -1}, outputs=len(blocks))
        rotated = [g.op("MatMul", [part, block]) for part, block in zip(parts, blocks, strict=True)]
        vector = g.op("Concat", rotated, {"axis": -1})
    return g.op("Greater", [vector, g.vector(f"{output.name}.center", codebook.center)])


def _packed(g: GraphBuilder, bits: ir.Value, axes: int) -> ir.Value:
    """Pack eight booleans into a byte, the first dimension in the highest bit."""
    grouped = g.op("Reshape", [g.op("Cast", [bits], {"to": FLOAT}), g.constant([*[0] * axes, -1, 8], np.int64)])
    places = g.constant([[128], [64], [32], [16], [8], [4], [2], [1]], np.float32)
    summed = g.op("Squeeze", [g.op("MatMul", [grouped, places]), g.constant([-1], np.int64)])
    return g.op("Cast", [summed], {"to": int(ir.DataType.UINT8)})
