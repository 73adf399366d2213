"""Range of float16 products: measured on the calibration texts, in float32; a graph without head-room is refused.

A value above 65504 becomes infinite in float16, and a kernel may hide that: the vector is wrong without a sign of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.pack.accuracy_records import Headroom
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.quantization.statistics import SiteStatistics

MAX_FLOAT16 = 65504.0
# Other texts may have values as many times as large as the calibration texts.
MIN_HEADROOM = 4.0
RANGES = "ranges"


@dataclass
class ProductRanges:
    """Largest magnitudes of the products of a graph on the calibration texts; `option` is the one that asked for it."""

    option: str
    products: int = 0
    largest: float = 0.0
    value: str = ""  # value that has it: a site, or the output of a layer

    @classmethod
    def of(cls, context: GraphContext, option: str) -> ProductRanges:
        """The ranges of the graph under construction."""
        return context.once(RANGES, lambda: cls(option))

    def add_input(self, context: GraphContext, x: Activation) -> None:
        """Add the input of products; errors as of `add`."""
        statistics = context.statistics[x.site]
        self.add(x.site, float(max(np.abs(statistics.low).max(), np.abs(statistics.high).max())))

    def add_product(self, layer: LinearLayer, statistics: SiteStatistics, *, half_sums: bool) -> None:
        """Add the outputs of a layer for all calibration tokens, with the bias; errors as of `add` and `checked`.

        `half_sums`: kernels may add up in float16, in any order. A partial sum is at most the sum of the terms of one
        sign, and the larger of the two such sums is (sum |x w| + |sum x w|) / 2.
        """
        assert statistics.activations is not None
        largest = weight = 0.0
        for rows in layer.weight.chunks():
            weight = max(weight, float(np.abs(rows).max()))
            sums = [_largest_sum(tokens.values, rows, half_sums=half_sums) for tokens in statistics.activations]
            largest = max(largest, *sums)
        self.products += 1
        bias = 0.0 if layer.bias is None else float(np.abs(layer.bias).max())
        self.add(f"output of {layer.module}", largest + bias)
        self._check_weight(layer.weight, weight)

    def add(self, value: str, largest: float) -> None:
        """Add the largest magnitude of a value; CheckpointError without head-room."""
        if not largest <= MAX_FLOAT16 / MIN_HEADROOM:
            raise CheckpointError(
                f"{value} reaches {largest:.0f} on the calibration texts; float16 ends at {MAX_FLOAT16:.0f}, and "
                f"{MIN_HEADROOM:g} times the largest value must fit: leave out {self.option}"
            )
        if largest > self.largest:
            self.largest, self.value = largest, value

    def checked(self, matrix: Matrix) -> Iterator[Float32]:
        """Successive chunks of the rows of a matrix; CheckpointError for a value that float16 does not have."""
        for chunk in matrix.chunks():
            self._check_weight(matrix, float(np.abs(chunk).max()))
            yield chunk

    def _check_weight(self, matrix: Matrix, largest: float) -> None:
        if largest > MAX_FLOAT16:
            raise CheckpointError(
                f"{matrix.name}: a weight is {largest:.0f}, and float16 ends at {MAX_FLOAT16:.0f}; leave out "
                f"{self.option}"
            )


def headroom(context: GraphContext) -> Headroom | None:
    """Head-room of a written graph; None: it has no float16 products."""
    ranges = context.shared.get(RANGES)
    if not isinstance(ranges, ProductRanges):
        return None
    return Headroom(
        products=ranges.products,
        largest=round(ranges.largest, 3),
        value=ranges.value,
        factor=round(MAX_FLOAT16 / ranges.largest, 1),
    )


def _largest_sum(tokens: Float32, rows: Float32, *, half_sums: bool) -> float:
    """Largest magnitude of the products of tokens [n, k] and rows [m, k], or of their partial sums."""
    sums = np.abs(tokens @ rows.T)
    if half_sums:
        sums = (sums + np.abs(tokens) @ np.abs(rows).T) / 2
    return float(sums.max())
