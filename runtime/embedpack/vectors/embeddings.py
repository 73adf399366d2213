"""Returned vectors: codes with all that is needed to use them later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Codes, Float32, Precision, check_codes, decode, truncate
from embedpack.vectors.metadata import check_same_kind, load_kind, save_kind

FILE_FORMAT = "embedpack-embeddings-2"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Single vectors in one precision.

    Attributes:
        codes: array [n, width]; type and width as the table in `embedpack.vectors.codes` says.
        precision: "float32", "float16", "int8", "4bit", "2bit", "ternary" or "binary".
        dimensions: dimensions of the vectors that the codes stand for.
        space: name of the vector space (model, task, weights' source); only vectors of one space can be compared.
        max_pixels: area to which images were brought; None: the model's own limit.
        codebook: what made the codes; None: of float32, float16 and int8, which need none.
    """

    codes: Codes
    precision: Precision
    dimensions: int
    space: str
    max_pixels: int | None = None
    codebook: Codebook | None = None

    def __post_init__(self) -> None:
        check_codes(self.codes, self.precision, self.dimensions, self.codebook)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: int | np.integer[Any] | slice | npt.NDArray[Any]) -> Embeddings:
        """Some of the vectors; an int gives the one vector as Embeddings of length 1."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)} embeddings")
            rows = slice(rows, rows + 1 or None)
        return replace(self, codes=self.codes[rows])

    def __iter__(self) -> Iterator[Embeddings]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("embeddings are decoded into a new array, which copy=False forbids")
        return self.decode() if dtype is None else self.decode().astype(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return self.codes.nbytes

    def decode(self) -> Float32:
        """The vectors, float32 [n, dimensions], of unit length.

        Raises:
            InputError: the codes hold what no vector has.
        """
        return decode(self.codes, self.precision, self.dimensions, self.codebook)

    def truncate(self, dimensions: int) -> Embeddings:
        """The same vectors cut to fewer dimensions: a prefix of the codes.

        Raises:
            InputError: more dimensions than there are, or a number that the precision cannot hold, or within a block
                of the codebook's rotation.
        """
        if not 1 <= dimensions <= self.dimensions:
            raise InputError(f"cannot truncate {self.dimensions} dimensions to {dimensions}")
        return replace(self, codes=truncate(self.codes, self.precision, dimensions), dimensions=dimensions)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; it appears whole or not at all.

        Raises:
            InputError, CapacityError: the file cannot be written.
        """
        save_kind(path, FILE_FORMAT, {"codes": self.codes}, self)

    @classmethod
    def load(cls, path: str | Path, mapped: bool = False) -> Embeddings:
        """Read what `save` wrote; `mapped` leaves the codes on the disk until they are used.

        Raises:
            InputError: the file is missing, cut short, or holds something else.
        """
        return load_kind(path, FILE_FORMAT, ("codes",), cls, mapped=mapped)


def concatenate(parts: list[Embeddings]) -> Embeddings:
    """All vectors of several Embeddings of the same kind, in order.

    Raises:
        InputError: there are none, or they differ in precision, dimensions, space, max_pixels or codebook.
    """
    check_same_kind(parts)
    return replace(parts[0], codes=np.concatenate([part.codes for part in parts]))
