"""Low-rank update of one matrix: LoRA and DoRA, for linear layers and embeddings.

linear     W' = W + scale * B @ A                          A [r, in], B [out, r]
embedding  E' = E + scale * (B @ A).T                      A [r, vocabulary], B [hidden, r]
DoRA       each output channel of W' is scaled to the length in the magnitude vector (Liu et al. 2024,
           arXiv 2402.09353, eq. 5; peft/tuners/lora/dora.py); the channels of an embedding are its columns

Everything is computed in float32, row by row, and rounded once when the result is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import ReadRows, RowIndex, row_chunks


@dataclass(frozen=True)
class LowRankUpdate:
    """Low-rank update of one module."""

    path: str  # name of the module, for messages
    a: StoredTensor  # A, [r, in], or [r, vocabulary] of an embedding
    b: StoredTensor  # B, [out, r], or [hidden, r] of an embedding
    scale: float  # factor of the product
    embedding: bool  # whether the module is an embedding
    magnitude: StoredTensor | None  # DoRA's magnitude vector, [channels] or [1, channels]
    b_bias: StoredTensor | None  # bias of B (`lora_bias`), [out]

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Refuse an update that does not fit the matrix.

        Raises:
            CheckpointError: A, B or the magnitude vector has another shape.
        """
        rows, columns = shape
        rank = self.a.shape[0]
        a, b, channels = (columns, rows, rows) if not self.embedding else (rows, columns, columns)
        expected: dict[StoredTensor, tuple[int, ...]] = {self.a: (rank, a), self.b: (b, rank)}
        if self.magnitude is not None and self.magnitude.shape not in ((channels,), (1, channels)):
            expected[self.magnitude] = (channels,)
        if self.b_bias is not None:
            expected[self.b_bias] = (rows,)
        for tensor, needed in expected.items():
            if tensor.shape != needed:
                raise CheckpointError(
                    f"{tensor.path}: {tensor.name} has the shape {list(tensor.shape)}, the model's matrix "
                    f"{self.path} needs {list(needed)}; the adapter belongs to another model"
                )

    def merge(self, base: ReadRows, shape: tuple[int, int]) -> ReadRows:
        """Reader of the rows of the merged matrix; it holds A and B in memory."""
        delta = self._delta()

        def added(rows: RowIndex) -> Float32:
            return base(rows) + delta(rows)

        if self.magnitude is None:
            return added
        magnitude = self.magnitude.float32().reshape(-1)
        if self.embedding:
            with np.errstate(all="ignore"):  # what is not finite is refused when the rows are read
                factor = magnitude / _column_norms(added, shape)
            return lambda rows: added(rows) * factor

        def rescaled(rows: RowIndex) -> Float32:
            weight = added(rows)
            length = np.linalg.norm(weight, axis=1, keepdims=True)
            return (weight * (magnitude[rows, None] / length)).astype(np.float32)

        return rescaled

    def factors(self) -> tuple[Float32, Float32]:
        """Factors A [r, in], and B [out, r] times the scale.

        Raises:
            CheckpointError: the update is not the product of two factors.
        """
        if self.magnitude is not None or self.b_bias is not None or self.embedding:
            raise CheckpointError(
                f"{self.path}: DoRA, lora_bias and adapted embeddings cannot be switched at run time; export it merged"
            )
        return self.a.float32(), np.float32(self.scale) * self.b.float32()

    def bias_change(self) -> Float32 | None:
        """Change of the module's bias (`lora_bias`), [out]; None if there is none."""
        return None if self.b_bias is None else np.float32(self.scale) * self.b_bias.float32()

    def _delta(self) -> ReadRows:
        """Reader of the rows of scale * B @ A."""
        scale, a, b = np.float32(self.scale), self.a.float32(), self.b.float32()
        if self.embedding:
            return lambda rows: scale * (a[:, rows].T @ b.T)
        return lambda rows: scale * (b[rows] @ a)


def _column_norms(read: ReadRows, shape: tuple[int, int]) -> Float32:
    squares = np.zeros(shape[1], np.float64)
    for start, stop in row_chunks(shape[0]):
        squares += np.square(read(slice(start, stop)), dtype=np.float64).sum(0)
    return np.sqrt(squares).astype(np.float32)
