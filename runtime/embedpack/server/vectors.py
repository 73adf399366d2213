"""Vectors of a call, truncated, in the format that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedpack.server.schemas import EncodingType
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Codes, Precision, check_unit, check_vectors, quantize, truncate, unit
from embedpack.vectors.metric import UNIT, Metric

PRECISIONS: Mapping[EncodingType, Precision] = {
    "float": "float32", "base64": "float32", "int8": "int8", "binary": "binary", "ubinary": "binary",
}  # fmt: skip
# `binary` is the byte of `ubinary` minus this, as in Jina's API.
BINARY_OFFSET = 128


@dataclass(frozen=True)
class VectorFormat:
    """Format of the vectors of a call, with the scale, the codebook and the metric of its task."""

    encoding: EncodingType
    dimensions: int
    int8_scale: float
    codebook: Codebook
    metric: Metric = UNIT  # of the vectors that the graph gives
    unit: bool = True  # float vectors are brought to length 1
    means: bool = False  # the vectors are means of chunks, which are not yet brought to length 1

    def codes(self, vectors: Float32) -> Codes:
        """Codes of vectors, float32 [n, d], truncated; DirectionError if a length is not that of the metric."""
        if self.metric.normalized:
            vectors = unit(vectors) if self.means else vectors
            check_unit(vectors)
        else:
            check_vectors(vectors)
        precision = PRECISIONS[self.encoding]
        if precision != "float32":
            whole = self.metric.of_codes(vectors, precision)
            return truncate(quantize(whole, precision, self._quantizer(precision)), precision, self.dimensions)
        codes = truncate(vectors, precision, self.dimensions, normalized=self.metric.normalized)
        return unit(codes) if self.unit and not self.metric.normalized else codes

    def _quantizer(self, precision: Precision) -> float | Codebook:
        return self.int8_scale if precision == "int8" else self.codebook

    def rows(self, vectors: Float32) -> list[Any]:
        """One value of `embedding` for each vector."""
        codes = self.codes(vectors)
        if self.encoding == "base64":
            # msgspec writes the memory of an array in base64 into its output.
            return [row.data for row in codes.astype("<f4", copy=False)]
        if self.encoding == "binary":
            codes = codes.astype(np.int16) - BINARY_OFFSET
        rows: list[Any] = codes.tolist()
        return rows


@dataclass(frozen=True)
class SeveralFormats:
    """Several formats of each vector."""

    formats: Mapping[EncodingType, VectorFormat]

    def rows(self, vectors: Float32) -> list[dict[str, Any]]:
        """One value of `embedding` for each vector: an object by format."""
        columns = [form.rows(vectors) for form in self.formats.values()]
        return [dict(zip(self.formats, row, strict=True)) for row in zip(*columns, strict=True)]
