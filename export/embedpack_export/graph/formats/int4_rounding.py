"""Rounding of weights to 4 bits in blocks, with calibration to keep the error small.

* The weights are first corrected for the errors of the quantized layers before
  (`embedpack_export.quantization.error_compensation`).
* They are then rounded by GPTQ for the covariance of the quantized input, as the graph written so far computes it
  (`embedpack_export.quantization.gptq`).
* The remaining mean error goes into the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.formats.blocks import BLOCK_COLUMNS
from embedpack_export.quantization.error_compensation import LayerBatch, QuantizedInputStats
from embedpack_export.quantization.gptq import Rounding, RoundingMethod, regression, round_columns
from embedpack_export.quantization.integers import ErrorSum, block_scales, dequantize_blocks, pack_blocks, round_nearest

BITS = 4


class Scales(Protocol):
    """Scales of blocks as they are stored."""

    @property
    def values(self) -> Float32:
        """The scales that products are computed with, float32 [n, blocks], none of which is 0."""
        ...


S = TypeVar("S", bound=Scales)


@dataclass(frozen=True)
class WeightRounding:
    """Rounding of the weights that read one activation."""

    method: RoundingMethod
    statistics: QuantizedInputStats
    blocks: Sequence[Rounding]

    @classmethod
    def of(
        cls, method: RoundingMethod, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]
    ) -> WeightRounding:
        """Rounding of layers that read x, from the calibration inputs in the graph written so far."""
        residuals = [layer.residual for layer in layers if layer.residual is not None]
        statistics = QuantizedInputStats.of(context.statistics[x.site].mean, _layer_batches(context, x, *residuals))
        return cls(method, statistics, () if method == "rtn" else statistics.roundings())

    def corrected(self, weights: Float32, rows: slice) -> Float32:
        """Weights [n, k] with error compensation; `rows` are their rows in the matrix."""
        if self.method != "gptaq":
            return weights
        return weights + regression(self.blocks, self.statistics.correction(weights, rows))

    def integers(self, weights: Float32, scales: Float32) -> Float32:
        """Integers for weights [n, k] with the scales of their blocks [n, blocks], float32 [n, k]."""
        if self.method == "rtn":
            return round_nearest(weights, scales, BITS, BLOCK_COLUMNS)
        by_column = np.repeat(scales, BLOCK_COLUMNS, axis=1)[:, : weights.shape[1]]
        return round_columns(self.blocks, weights, by_column, -8, 7)

    def mean_error(self, weights: Float32, rounded: Float32, rows: slice) -> Float32:
        """Mean of W x + r - V y, which the bias adds back, [n]: V are the rounded weights (0 for "rtn")."""
        if self.method == "rtn":
            return np.zeros(len(weights), np.float32)
        error = weights @ self.statistics.exact_mean - rounded @ self.statistics.mean
        return error + self.statistics.residual_error[rows] if len(self.statistics.residual_error) else error


@dataclass
class Int4Matrix(Generic[S]):
    """Scales, mean errors and rounding error of a matrix in 4 bits, filled while its integers are streamed.

    `store` rounds the scales float32 [n, blocks] of a chunk to what is stored.
    """

    matrix: Matrix
    rounding: WeightRounding
    store: Callable[[Float32], S]
    scales: list[S] = field(default_factory=list)
    mean_errors: list[Float32] = field(default_factory=list)
    errors: ErrorSum = field(default_factory=ErrorSum)

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """Shape of the packed integers: rows, blocks, bytes of a block."""
        rows, columns = self.matrix.shape
        return rows, -(-columns // BLOCK_COLUMNS), BLOCK_COLUMNS * BITS // 8

    @property
    def attributes(self) -> dict[str, int]:
        """Attributes of MatMulNBits."""
        rows, columns = self.matrix.shape
        return {"K": columns, "N": rows, "bits": BITS, "block_size": BLOCK_COLUMNS}

    def chunks(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Round the matrix chunk by chunk; yields the packed integers."""
        start = 0
        for chunk in self.matrix.chunks():
            rows = slice(start, start + len(chunk))
            corrected = self.rounding.corrected(chunk, rows)
            scales = self.store(block_scales(corrected, BITS, BLOCK_COLUMNS))
            integers = self.rounding.integers(corrected, scales.values)
            rounded = dequantize_blocks(integers, scales.values, BLOCK_COLUMNS)
            self.errors.add(corrected, rounded)
            self.scales.append(scales)
            self.mean_errors.append(self.rounding.mean_error(chunk, rounded, rows))
            start = rows.stop
            yield pack_blocks(integers, BITS, BLOCK_COLUMNS)

    def bias(self, layer: LinearLayer) -> Float32:
        """The bias of the layer with the mean errors, [rows]; call it after `chunks`."""
        return (np.concatenate(self.mean_errors) + (0 if layer.bias is None else layer.bias)).astype(np.float32)


def _layer_batches(context: GraphContext, x: Activation, residual: Activation | None = None) -> Iterator[LayerBatch]:
    """Calibration batches at layers that read x and whose results are added to `residual`."""
    read = [x] if residual is None else [x, residual]
    files = [file for activation in read if (file := context.statistics[activation.site].activations) is not None]
    assert context.written is not None
    written = context.written([activation.value for activation in read], files[0].batches)
    batches = zip(zip(*files, strict=True), written, strict=True)
    for (exact, *exact_residual), (quantized, *quantized_residual) in batches:
        error = np.empty((len(quantized), 0), np.float32)
        if exact_residual:
            error = exact_residual[0].values - quantized_residual[0]
        yield LayerBatch(exact, quantized, error)
