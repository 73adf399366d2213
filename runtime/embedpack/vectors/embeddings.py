"""Single vectors as codes with their metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LOW_BIT, Codebook
from embedpack.vectors.codes import Codes, Precision, check_codes, check_truncation, check_vectors, decode, truncate
from embedpack.vectors.ids import Ids, check_ids, concatenate_ids, select_ids
from embedpack.vectors.metadata import CodedVectors, check_comparable, check_same_metadata
from embedpack.vectors.metric import UNIT, Metric

FILE_FORMAT = "embedpack-embeddings-2"


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings(CodedVectors):
    """Single vectors in one precision.

    Attributes:
        codes: array [n, width] of dtype and width as in the table of `embedpack.vectors.codes`.
        precision: "float32", "float16", "int8", "4bit", "2bit", "ternary" or "binary".
        dimensions: number of dimensions of the vectors.
        space: name of the vector space (model, task, source of the weights); only vectors of one space can be compared.
        max_pixels: largest area of an image after resizing; None: the model's own limit.
        codebook: codebook of low-bit codes; None for float32, float16 and int8.
        ids: name of each input; None: the inputs have no names.
        metric: lengths and similarity of the vectors of this space.
    """

    codes: Codes
    precision: Precision
    dimensions: int
    space: str
    max_pixels: int | None = None
    codebook: Codebook | None = None
    ids: Ids = None
    metric: Metric = UNIT

    file_format: ClassVar[str] = FILE_FORMAT
    tensor_names: ClassVar[tuple[str, ...]] = ("codes",)
    has_metric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_codes(self.codes, self.precision, self.dimensions, self.codebook)
        check_ids(self.ids, len(self))
        self.metric.check_precision(self.precision)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: int | np.integer[Any] | slice | npt.NDArray[Any]) -> Embeddings:
        """Vectors of some rows; an int gives Embeddings of length 1."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)} embeddings")
            rows = slice(rows, rows + 1 or None)
        return replace(self, codes=self.codes[rows], ids=select_ids(self.ids, rows))

    def __iter__(self) -> Iterator[Embeddings]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("embeddings are decoded into a new array, which copy=False forbids")
        return self.decode() if dtype is None else self.decode().astype(dtype)

    def decode(self) -> Float32:
        """Vectors, float32 [n, dimensions]: of length 1, unless the codes keep lengths of their own (see `Metric`).

        Raises:
            InputError: a byte is not a valid code.
        """
        if not self.metric.normalized and self.precision in ("float32", "float16"):
            return self.codes.astype(np.float32)
        if self.metric.int8_scale is not None:
            return self.codes.astype(np.float32) * np.float32(self.metric.int8_scale)
        return self.directions()

    def directions(self) -> Float32:
        """Vectors of length 1, float32 [n, dimensions]; a zero vector stays zero.

        Raises:
            InputError: a byte is not a valid code.
        """
        return decode(self.codes, self.precision, self.dimensions, self.codebook)

    def in_code_space(self, documents: Embeddings) -> Float32:
        """Vectors in the coordinates of the documents' low-bit codes: y = R x - center, float32 [n, dimensions].

        For queries in a program that makes bits, or rescores, by itself: the bits of y > 0 are the binary codes, and
        the dot products of y with the signs (+1, -1) of binary documents rank them. Both are those of plain float
        vectors where the codebook has neither center nor rotation.

        Raises:
            InputError: the documents are not low-bit codes, a vector is zero or not finite, or the vectors cannot be
                compared (see `similarity`).
        """
        check_comparable(self, documents, if_dimensions="shorten the longer ones with .truncate()")
        if documents.codebook is None:
            raise InputError(
                f"{documents.precision} documents have no codebook; pass documents in {', '.join(LOW_BIT)}"
            )
        vectors = self.directions()
        check_vectors(vectors)
        # Codes of truncated vectors are those of prefixes that were not normalized.
        return documents.codebook.centered(vectors * np.float32(documents.codebook.length(self.dimensions)))

    def truncate(self, dimensions: int) -> Embeddings:
        """Truncate the vectors to fewer dimensions: to a prefix of each code.

        Raises:
            InputError: the vectors have fewer dimensions; or these do not fill whole bytes, or end within a block of
                the codebook's rotation.
        """
        check_truncation(self.dimensions, dimensions)
        codes = truncate(self.codes, self.precision, dimensions, normalized=self.metric.normalized)
        return replace(self, codes=codes, dimensions=dimensions)


def concatenate(parts: list[Embeddings]) -> Embeddings:
    """Concatenate Embeddings of equal metadata; InputError if it differs, or the list is empty."""
    if len(parts) == 1:
        return parts[0]
    check_same_metadata(parts)
    ids = concatenate_ids([part.ids for part in parts])
    return replace(parts[0], codes=np.concatenate([part.codes for part in parts]), ids=ids)
