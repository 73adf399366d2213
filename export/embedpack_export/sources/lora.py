"""Low-rank update of one matrix: LoRA and DoRA, for linear layers and embeddings.

linear     W' = W + scale * B @ A                          A [r, in], B [out, r]
embedding  E' = E + scale * (B @ A).T                      A [r, vocabulary], B [hidden, r], as PEFT stores them
rows       E' = E + scale * A @ B                          A [vocabulary, r], B [r, hidden], as jina-embeddings-v3 does
DoRA       each output channel of W' is scaled to the length in the magnitude vector (Liu et al. 2024,
           arXiv 2402.09353, eq. 5; peft/tuners/lora/dora.py); the channels of an embedding are its columns

Everything is computed in float32, row by row, and rounded once when the result is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import ReadRows, RowIndex, row_chunks

FactorLayout: TypeAlias = Literal["linear", "embedding", "rows"]


@dataclass(frozen=True)
class LowRankUpdate:
    """Low-rank update of one module."""

    path: str  # name of the module, for messages
    a: StoredTensor  # A, in the layout
    b: StoredTensor  # B, in the layout
    scale: float  # factor of the product
    layout: FactorLayout  # shapes of A and B, and their product; see above
    magnitude: StoredTensor | None = None  # DoRA's magnitude vector, [channels] or [1, channels]
    b_bias: StoredTensor | None = None  # bias of B (`lora_bias`), [out]

    @property
    def is_embedding(self) -> bool:
        """True if the module is an embedding."""
        return self.layout != "linear"

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Refuse an update that does not fit the matrix.

        Raises:
            CheckpointError: A, B or the magnitude vector has another shape.
        """
        rows, columns = shape
        channels = columns if self.is_embedding else rows
        if self.layout == "rows":
            rank = self.b.shape[0]
            expected: dict[StoredTensor, tuple[int, ...]] = {self.a: (rows, rank), self.b: (rank, columns)}
        else:
            rank = self.a.shape[0]
            inner, outer = (rows, columns) if self.is_embedding else (columns, rows)
            expected = {self.a: (rank, inner), self.b: (outer, rank)}
        if self.magnitude is not None and self.magnitude.shape not in ((channels,), (1, channels)):
            expected[self.magnitude] = (channels,)
        if self.b_bias is not None:
            expected[self.b_bias] = (rows,)
        for tensor, needed in expected.items():
            if tensor.shape != needed:
                raise self._misfit(tensor, needed)

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Tensors of the update, by the part of the key."""
        parts = {"lora_A": self.a, "lora_B": self.b, "magnitude": self.magnitude, "lora_B.bias": self.b_bias}
        return {part: tensor for part, tensor in parts.items() if tensor is not None}

    def merge(self, base: ReadRows, lengths: Float32 | None) -> ReadRows:
        """Reader of the rows of the merged matrix; it holds A and B in memory.

        `lengths` are the `column_lengths` of a DoRA of an embedding; other updates need none.
        """
        delta = self._delta()

        def added(rows: RowIndex) -> Float32:
            return base(rows) + delta(rows)

        if self.magnitude is None:
            return added
        magnitude = self.magnitude.float32().reshape(-1)
        if lengths is not None:
            with np.errstate(all="ignore"):  # what is not finite is refused when the rows are read
                factor = magnitude / lengths
            return lambda rows: added(rows) * factor

        def rescaled(rows: RowIndex) -> Float32:
            weight = added(rows)
            length = np.linalg.norm(weight, axis=1, keepdims=True)
            return (weight * (magnitude[rows, None] / length)).astype(np.float32)

        return rescaled

    def column_lengths(self, base: ReadRows, rows: int) -> Float32 | None:
        """Lengths of the columns of an embedding's E + scale * (B @ A).T, [hidden]; None: a merge needs none.

        From the squares |e|^2 + 2 scale * e.(A.T b) + scale^2 * b.(A A.T) b of a column e and its row b of B, so that
        the sum itself, which is as large as the table, is not computed.
        """
        if self.magnitude is None or not self.is_embedding:
            return None
        a, b = self.a.float32().astype(np.float64), self.b.float32().astype(np.float64)
        squares, products = np.zeros(len(b)), np.zeros(b.shape)
        for start, stop in row_chunks(rows):
            table = base(slice(start, stop)).astype(np.float64)
            squares += np.square(table).sum(0)
            products += table.T @ a[:, start:stop].T
        squares += 2 * self.scale * (products * b).sum(1) + self.scale**2 * ((b @ (a @ a.T)) * b).sum(1)
        return np.sqrt(np.maximum(squares, 0)).astype(np.float32)

    def blocks(self, count: int) -> list[LowRankUpdate]:
        """Updates of equal blocks of rows of the matrix, which share A.

        Raises:
            CheckpointError: the module is an embedding.
            InputError: the rows are no such blocks.
        """
        if self.is_embedding:
            raise CheckpointError(f"{self.path}: an update of an embedding, where the model has several linear layers")
        magnitudes, biases = _blocks(self.magnitude, count), _blocks(self.b_bias, count)
        parts = zip(self.b.blocks(count), magnitudes, biases, strict=True)
        return [replace(self, b=b, magnitude=magnitude, b_bias=bias) for b, magnitude, bias in parts]

    def check_switchable(self) -> None:
        """Refuse an update that is not the product of two factors.

        Raises:
            CheckpointError: it is a DoRA, or has a bias.
        """
        if self.magnitude is not None or self.b_bias is not None:
            raise CheckpointError(f"{self.path}: DoRA and lora_bias cannot be switched at run time; export it merged")

    def factors(self) -> tuple[Float32, Float32]:
        """Factors A [r, in], and B [out, r] times the scale, of a linear layer."""
        assert not self.is_embedding
        return self.a.float32(), np.float32(self.scale) * self.b.float32()

    def table_factors(self) -> tuple[Float32, Float32]:
        """Factors [vocabulary, r], and [r, hidden] times the scale, of an embedding.

        Raises:
            CheckpointError: a value is not finite.
        """
        assert self.is_embedding
        a, b = self.a.float32(), np.float32(self.scale) * self.b.float32()
        for tensor, values in ((self.a, a), (self.b, b)):
            if not np.isfinite(values).all():
                raise CheckpointError(
                    f"{tensor.path}: {tensor.name} has values that are not finite; the adapter is damaged: download it "
                    "again"
                )
        return (a, b) if self.layout == "rows" else (np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))

    def bias_change(self, size: int) -> Float32 | None:
        """Change of the module's bias (`lora_bias`), [size]; None if there is none.

        Raises:
            CheckpointError: the bias has another size.
        """
        if self.b_bias is None:
            return None
        if self.b_bias.shape != (size,):
            raise self._misfit(self.b_bias, (size,))
        return np.float32(self.scale) * self.b_bias.float32()

    def _misfit(self, tensor: StoredTensor, needed: tuple[int, ...]) -> CheckpointError:
        return CheckpointError(
            f"{tensor.path}: {tensor.name} has the shape {list(tensor.shape)}, the model's matrix "
            f"{self.path} needs {list(needed)}; the adapter belongs to another model"
        )

    def _delta(self) -> ReadRows:
        """Reader of the rows of the product times the scale."""
        scale, a, b = np.float32(self.scale), self.a.float32(), self.b.float32()
        if self.layout == "rows":
            return lambda rows: scale * (a[rows] @ b)
        if self.layout == "embedding":
            return lambda rows: scale * (a[:, rows].T @ b.T)
        return lambda rows: scale * (b[rows] @ a)


def _blocks(tensor: StoredTensor | None, count: int) -> Sequence[StoredTensor | None]:
    """Equal blocks of the values of a vector, [n] or [1, n], that an update may lack."""
    return [None] * count if tensor is None else replace(tensor, shape=(math.prod(tensor.shape),)).blocks(count)
