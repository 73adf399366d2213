"""Bias of attention scores by relative position, in buckets (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

Bucket of key position minus query position, as in MPNet (`MPNetEncoder.relative_position_bucket` of transformers): half
of the buckets for each direction; of these one per distance below a quarter of all buckets, the others in logarithmic
steps up to the largest distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.pack.graph_io import INPUT_IDS
from embedpack_export.graph.context import GraphContext


@dataclass(frozen=True)
class RelativeBias:
    """A table of scores, [buckets, heads], and the largest distance with a bucket of its own."""

    module: str
    buckets: int
    max_distance: int

    def of(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Buckets of key positions minus query positions, int64 [n]."""
        half = self.buckets // 2
        exact = half // 2
        size = np.abs(distances)
        # float32, as transformers computes it: a distance on a bound falls into the same bucket.
        steps = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(
            math.log(self.max_distance / exact)
        )
        far = exact + (steps * np.float32(half - exact)).astype(np.int64)
        within = np.where(size < exact, size, np.minimum(far, half - 1))
        return np.where(distances > 0, half, 0) + within


def relative_scores(context: GraphContext, bias: RelativeBias, heads: int, positions: int) -> ir.Value:
    """Append the scores of all pairs of positions; float32 [1, heads, sequence, sequence].

    The graph has one row for each distance that its `positions` allow, so that it computes no buckets.
    """
    g = context.graph
    table = next(context.weights.matrix(bias.module, (bias.buckets, heads)).chunks())
    rows = table[bias.of(np.arange(1 - positions, positions, dtype=np.int64))]
    stored = g.weight(f"{bias.module}.by_distance", "shared", [rows.T.copy()], np.float32, (heads, 2 * positions - 1))
    length = g.op("Squeeze", [g.op("Shape", [context.inputs[INPUT_IDS]], {"start": 1, "end": 2})])
    place = g.op("Range", [g.constant(0, np.int64), length, g.constant(1, np.int64)])
    keys, queries = (g.op("Unsqueeze", [place, g.constant([axis], np.int64)]) for axis in (0, 1))
    distance = g.op("Add", [g.op("Sub", [keys, queries]), g.constant(positions - 1, np.int64)])
    return g.op("Unsqueeze", [g.op("Gather", [stored, distance], {"axis": 1}), g.constant([0], np.int64)])
