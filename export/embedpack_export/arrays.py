"""Arrays and matrices that are read in chunks of rows, never whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from embedpack.errors import CheckpointError
from embedpack.vectors.arrays import Float32

Float64: TypeAlias = npt.NDArray[np.float64]
RowIndex: TypeAlias = slice | npt.NDArray[np.intp]
# Rows of a matrix: a slice start:stop or indices.
ReadRows: TypeAlias = Callable[[RowIndex], Float32]

Scalar = TypeVar("Scalar", bound=np.generic)

CHUNK_ROWS = 1024
MIN_LENGTH = 1e-12


def unit_vectors(vectors: Float64) -> Float32:
    """Vectors [..., dimensions] divided by their lengths; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, MIN_LENGTH)).astype(np.float32)


def row_chunks(rows: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of successive chunks of CHUNK_ROWS rows."""
    for start in range(0, rows, CHUNK_ROWS):
        yield start, min(start + CHUNK_ROWS, rows)


def fill_columns(transposed: npt.NDArray[Scalar], chunks: Iterable[npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
    """Fill [columns, rows] with chunks of rows [n, columns]; onnxruntime multiplies by matrices [in, out]."""
    start = 0
    for chunk in chunks:
        transposed[:, start : start + len(chunk)] = chunk.T
        start += len(chunk)
    return transposed


@dataclass(frozen=True)
class Matrix:
    """A matrix float32 [rows, columns] that is read in chunks of rows, never whole."""

    name: str
    shape: tuple[int, int]  # rows and columns
    read: ReadRows  # function that reads rows

    def chunks(self) -> Iterator[Float32]:
        """Yield successive chunks of rows, float32 [n, columns]; raises CheckpointError if a value is not finite."""
        for start, stop in row_chunks(self.shape[0]):
            yield self._finite(slice(start, stop), f"{start} to {stop - 1}")

    def rows(self, indices: npt.NDArray[np.intp]) -> Float32:
        """Rows at `indices` [n], float32 [n, columns]; raises CheckpointError if a value is not finite."""
        return self._finite(indices, f"among {len(indices)} of {self.shape[0]}")

    def _finite(self, index: RowIndex, place: str) -> Float32:
        with np.errstate(all="ignore"):  # non-finite values are refused just below
            rows = self.read(index)
        if not np.isfinite(rows).all():
            raise CheckpointError(
                f"{self.name}: merged weights are not finite in rows {place}; "
                "the checkpoint or the adapter is damaged: download it again"
            )
        return rows
