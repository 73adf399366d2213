"""Cosines and sines of rotary angles from tables, for devices that do not compute them.

A position is STEP x coarse + fine, so two small tables are enough: cos(a + b) = cos a cos b - sin a sin b, and
sin(a + b) = sin a cos b + cos a sin b.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import GraphBuilder

# Positions are below STEP x COARSE: more than any model reads.
STEP, COARSE = 256, 1024


def looked_up_cosines(g: GraphBuilder, positions: ir.Value, frequencies: Float32) -> tuple[ir.Value, ir.Value]:
    """Append cosines and sines, float32 [batch, sequence, n] each.

    Positions are int64 [axes, batch, sequence], frequencies [axes, 1, 1, n]: those of an axis are successive, and come
    behind those of the axes before.
    """
    rows = frequencies[:, 0, 0]
    columns = [np.arange(rows.shape[1])] if len(rows) == 1 else [np.flatnonzero(row) for row in rows]
    assert np.array_equal(np.concatenate(columns), np.arange(rows.shape[1]))
    pairs = [_of_axis(g, positions, axis, rows[axis, places]) for axis, places in enumerate(columns)]
    if len(pairs) == 1:
        return pairs[0]
    cos, sin = (g.op("Concat", values, {"axis": -1}) for values in zip(*pairs, strict=True))
    return cos, sin


def _of_axis(g: GraphBuilder, positions: ir.Value, axis: int, frequencies: Float32) -> tuple[ir.Value, ir.Value]:
    """Append cosines and sines of the positions on an axis, float32 [batch, sequence, n] each."""
    step = g.constant(STEP, np.int64)
    place = g.op("Gather", [positions, g.constant(axis, np.int64)], {"axis": 0})
    coarse = g.op("Div", [place, step])
    fine = g.op("Sub", [place, g.op("Mul", [coarse, step])])
    exact = frequencies.astype(np.float64)
    cos_a, sin_a = _tables(g, np.arange(COARSE)[:, None] * STEP * exact, coarse)
    cos_b, sin_b = _tables(g, np.arange(STEP)[:, None] * exact, fine)
    cos = g.op("Sub", [g.op("Mul", [cos_a, cos_b]), g.op("Mul", [sin_a, sin_b])])
    return cos, g.op("Add", [g.op("Mul", [sin_a, cos_b]), g.op("Mul", [cos_a, sin_b])])


def _tables(g: GraphBuilder, angles: npt.NDArray[np.float64], index: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Append the look-up of cosines and sines of angles [rows, n]."""
    name = f"rotary.{hashlib.sha256(angles.tobytes()).hexdigest()[:16]}"
    cos, sin = (g.vector(f"{name}.{of.__name__}", of(angles).astype(np.float32)) for of in (np.cos, np.sin))
    return g.op("Gather", [cos, index], {"axis": 0}), g.op("Gather", [sin, index], {"axis": 0})
