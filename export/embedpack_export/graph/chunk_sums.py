"""Sums of the hidden states of parts of a text (`embedpack.pack.graph_io`)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import CHUNK_SUMS, CHUNK_WEIGHTS
from embedpack_export.graph.builder import GraphBuilder

AXES = ("batch", "chunks", "sequence")


def chunk_sums(g: GraphBuilder, hidden: ir.Value, dimensions: int) -> None:
    """Declare an output: sums of last hidden states [batch, sequence, dimensions], weighted by an optional input.

    Sums, not means: those of the windows of a long text can be added.
    """
    weights = g.optional_input(CHUNK_WEIGHTS, AXES, np.zeros((1, 0, 1), np.float32))
    # The default has one column whatever the text's length; weights that are given have one for each token.
    sequence = g.op("Shape", [hidden], {"start": 1, "end": 2})
    shape = g.op("Concat", [g.constant([1, 1], np.int64), sequence], {"axis": 0})
    sums = g.op("MatMul", [g.op("Expand", [weights, shape]), hidden])
    g.output(sums, CHUNK_SUMS, ir.DataType.FLOAT, ["batch", "chunks", dimensions])
