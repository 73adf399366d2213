"""Rows of an embedding table that an adapter replaces (PEFT's `trainable_token_indices`, v5-omni's special tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, ReadRows, RowIndex


@dataclass(frozen=True)
class TokenRows:
    """New rows of one table."""

    path: str  # name of the table's module
    indices: tuple[int, ...]  # token ids, each once
    rows: StoredTensor  # their rows, [tokens, hidden]
    key: str = "trainable_token_indices"  # key of the configuration that has the token ids

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Refuse rows that do not fit the table.

        Raises:
            CheckpointError: there are more or fewer rows than tokens, of another size, or a token is not in the table.
        """
        vocabulary, hidden = shape
        if self.rows.shape != (len(self.indices), hidden):
            raise CheckpointError(
                f"{self.rows.path}: {self.rows.name} has the shape {list(self.rows.shape)}, the "
                f"{len(self.indices)} tokens of {self.key} need [{len(self.indices)}, {hidden}]"
            )
        if max(self.indices) >= vocabulary:
            raise CheckpointError(
                f"{self.rows.path}: {self.rows.name} replaces the row {max(self.indices)} of {self.path}, which has "
                f"{vocabulary}; if the vocabulary was resized for the training, save the resized model as well "
                "(resize_token_embeddings, save_pretrained) and export that one"
            )

    def blocks(self, count: int) -> Sequence[Self]:
        """See `Rows`: a table is never fused with others.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"{self.rows.path}: {self.rows.name} replaces rows of {self.path}, which is {count} layers in one and no "
            "table; is it an adapter for another model?"
        )

    def factors(self, table: Matrix) -> tuple[Float32, Float32]:
        """Factors [vocabulary, tokens] and [tokens, hidden]; their product is what the rows change in the table.

        Raises:
            CheckpointError: a value is not finite.
        """
        indices = np.asarray(self.indices, np.intp)
        places = np.zeros((table.shape[0], len(indices)), np.float32)
        places[indices, np.arange(len(indices))] = 1
        new = self.rows.float32()
        if not np.isfinite(new).all():
            raise CheckpointError(
                f"{self.rows.path}: {self.rows.name} has values that are not finite; the file is damaged: download it "
                "again"
            )
        return places, new - table.rows(indices)

    def merge(self, base: ReadRows) -> ReadRows:
        """Reader of the rows of the table with the new ones."""
        order = np.argsort(self.indices)
        indices, new = np.asarray(self.indices)[order], self.rows.float32()[order]

        def read(rows: RowIndex) -> Float32:
            values = np.array(base(rows))
            wanted = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            places = np.minimum(np.searchsorted(indices, wanted), len(indices) - 1)
            replaced = indices[places] == wanted
            values[replaced] = new[places[replaced]]
            return values

        return read
