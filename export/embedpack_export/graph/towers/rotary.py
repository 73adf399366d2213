"""Rotary positions (Su et al. 2021, arXiv 2104.09864) along one or several axes, as tables for RotaryEmbedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import INPUT_IDS
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import GraphContext
from embedpack_export.graph.towers.rope_scaling import RopeScaling


@dataclass(frozen=True)
class RotaryTable:
    """Assignment of rotary frequencies to axes of the positions."""

    head_size: int  # channels of a head; there are half as many frequencies theta^(-2j / head_size)
    theta: float  # base of the frequencies
    # Number of successive frequencies of each axis; empty: there is one axis, with all of them.
    sections: tuple[int, ...] = ()
    scaling: RopeScaling | None = None

    @property
    def amplitude(self) -> float:
        """Factor of cosines and sines."""
        return 1.0 if self.scaling is None else self.scaling.amplitude

    def frequencies(self) -> Float32:
        """Frequencies [axes, 1, 1, head_size / 2]: each in the row of its axis, zeros in the other rows."""
        half = self.head_size // 2
        exponents = np.arange(0, self.head_size, 2, dtype=np.float32) / self.head_size
        frequencies = (1 / np.float32(self.theta) ** exponents).astype(np.float32)
        if self.scaling is not None:
            frequencies = self.scaling.scaled(frequencies, self.theta)
        sections = self.sections or (half,)
        axis = np.repeat(np.arange(len(sections)), sections)
        table = np.zeros((len(sections), 1, 1, half), np.float32)
        table[axis, 0, 0, np.arange(half)] = frequencies
        return table


def angles(g: GraphBuilder, positions: ir.Value, frequencies: Float32) -> ir.Value:
    """Angles [batch, sequence, n] of positions int64 [axes, batch, sequence] and frequencies [axes, 1, 1, n]."""
    floats = g.op("Cast", [positions], {"to": int(ir.DataType.FLOAT)})
    columns = g.op("Unsqueeze", [floats, g.constant([-1], np.int64)])
    products = g.op("Mul", [columns, g.constant(frequencies, np.float32)])
    return g.op("ReduceSum", [products, g.constant([0], np.int64)], {"keepdims": 0})


def text_angles(context: GraphContext, table: RotaryTable) -> ir.Value:
    """Append the angles of positions 0, 1, ... of texts, which are padded on the right."""
    g, ids = context.graph, context.inputs[INPUT_IDS]
    length = g.op("Shape", [ids], {"start": 1, "end": 2})
    scalar = g.op("Squeeze", [length])
    positions = g.op("Range", [g.constant(0, np.int64), scalar, g.constant(1, np.int64)])
    rows = g.op("Expand", [positions, g.op("Shape", [ids])])
    return angles(g, g.op("Unsqueeze", [rows, g.constant([0], np.int64)]), table.frequencies())


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of rotary angles, float32 [batch, sequence, head_size / 2].

    `interleaved`: neighbouring channels rotate together, else those of the two halves of a head.
    """

    cos: ir.Value
    sin: ir.Value
    interleaved: bool = False

    def of(self, g: GraphBuilder, x: ir.Value, heads: int) -> ir.Value:
        """Append the rotation of queries or keys; float32 [batch, sequence, heads x head_size]."""
        attributes = {"num_heads": heads, "interleaved": int(self.interleaved)}
        return g.op("RotaryEmbedding", [x, self.cos, self.sin], attributes)


def rotation(context: GraphContext, table: RotaryTable, phases: Callable[[], ir.Value]) -> Rotation:
    """The rotation by a table, which its layers share; `phases` appends the angles the first time."""
    g = context.graph

    def make() -> Rotation:
        angles = phases()
        cos, sin = g.op("Cos", [angles]), g.op("Sin", [angles])
        if table.amplitude == 1:
            return Rotation(cos, sin)
        amplitude = g.constant(table.amplitude, np.float32)
        return Rotation(g.op("Mul", [cos, amplitude]), g.op("Mul", [sin, amplitude]))

    return context.once(f"rotation by {table}", make)


def text_rotation(context: GraphContext, table: RotaryTable) -> Rotation:
    """The rotation by positions 0, 1, ... of texts."""
    return rotation(context, table, lambda: text_angles(context, table))
