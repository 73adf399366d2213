"""Multi-vectors (one vector per token of each input) as codes with their metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Codes, Precision, check_codes, check_truncation, decode, truncate
from embedpack.vectors.ids import Ids, check_ids, concatenate_ids, select_ids
from embedpack.vectors.metadata import CodedVectors, check_same_metadata

FILE_FORMAT = "embedpack-multi-embeddings-2"

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class MultiEmbeddings(CodedVectors):
    """Multi-vectors of several inputs in one precision, as rows of one array.

    Attributes:
        codes: array [rows, width], the vectors of all inputs in order; dtype and width as in the table of
            `embedpack.vectors.codes`.
        offsets: int64 [n + 1]; rows `offsets[i]:offsets[i + 1]`, at least one, belong to input i.
        precision, dimensions, space, max_pixels, codebook, ids: as of `Embeddings`.
    """

    codes: Codes
    offsets: Int64
    precision: Precision
    dimensions: int
    space: str
    max_pixels: int | None = None
    codebook: Codebook | None = None
    ids: Ids = None

    file_format: ClassVar[str] = FILE_FORMAT
    tensor_names: ClassVar[tuple[str, ...]] = ("codes", "offsets")

    def __post_init__(self) -> None:
        check_codes(self.codes, self.precision, self.dimensions, self.codebook)
        _check_offsets(self.offsets, len(self.codes))
        check_ids(self.ids, len(self))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, inputs: int | np.integer[Any] | slice | npt.NDArray[Any]) -> MultiEmbeddings:
        """Multi-vectors of some inputs; an int gives MultiEmbeddings of length 1."""
        if isinstance(inputs, int | np.integer):
            if not -len(self) <= inputs < len(self):
                raise IndexError(f"input {inputs} of {len(self)} multi-vectors")
            inputs = slice(inputs, inputs + 1 or None)
        if isinstance(inputs, slice):
            start, stop, step = inputs.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
        indices = np.arange(len(self))[inputs]
        if indices.ndim != 1:
            raise IndexError(f"multi-vectors have one axis of inputs; the index has {indices.ndim} axes")
        return self._gathered(indices)

    def __iter__(self) -> Iterator[MultiEmbeddings]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        # Without this method numpy would treat the object as a nested sequence and recurse without end.
        raise TypeError("multi-vectors are no one array: inputs differ in their number of rows; use .decode()")

    @property
    def counts(self) -> Int64:
        """Number of rows of each input, int64 [n]."""
        return np.diff(self.offsets)

    def decode(self) -> list[Float32]:
        """Unit vectors of each input, float32 [rows of the input, dimensions].

        Raises:
            InputError: a byte is not a valid code.
        """
        vectors = decode(self.codes, self.precision, self.dimensions, self.codebook)
        return [vectors[start:stop] for start, stop in pairwise(self.offsets.tolist())]

    def truncate(self, dimensions: int) -> MultiEmbeddings:
        """Truncate the vectors to fewer dimensions: to a prefix of each code.

        Raises:
            InputError: as `Embeddings.truncate`.
        """
        check_truncation(self.dimensions, dimensions)
        return replace(self, codes=truncate(self.codes, self.precision, dimensions), dimensions=dimensions)

    def _between(self, start: int, stop: int) -> MultiEmbeddings:
        """Multi-vectors of consecutive inputs; a view of the codes."""
        offsets = self.offsets[start : stop + 1]
        ids = select_ids(self.ids, slice(start, stop))
        return replace(self, codes=self.codes[offsets[0] : offsets[-1]], offsets=offsets - offsets[0], ids=ids)

    def _gathered(self, inputs: npt.NDArray[np.intp]) -> MultiEmbeddings:
        """Multi-vectors of inputs in any order; a copy of the codes."""
        counts = self.counts[inputs]
        offsets = offsets_of(counts)
        rows = np.repeat(self.offsets[inputs] - offsets[:-1], counts) + np.arange(offsets[-1])
        return replace(self, codes=self.codes[rows], offsets=offsets, ids=select_ids(self.ids, inputs))


def offsets_of(counts: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Int64:
    """Offsets, int64 [n + 1], of inputs with these numbers of rows."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def concatenate_multi(parts: Sequence[MultiEmbeddings]) -> MultiEmbeddings:
    """Concatenate MultiEmbeddings of equal metadata; InputError if it differs, or the list is empty."""
    if len(parts) == 1:
        return parts[0]
    check_same_metadata(parts)
    offsets = offsets_of(np.concatenate([part.counts for part in parts]))
    ids = concatenate_ids([part.ids for part in parts])
    return replace(parts[0], codes=np.concatenate([part.codes for part in parts]), offsets=offsets, ids=ids)


def _check_offsets(offsets: Int64, rows: int) -> None:
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype != np.int64:
        raise InputError(
            "offsets of multi-vectors are an array [inputs + 1] of type int64, "
            f"not {list(offsets.shape)} of type {offsets.dtype}"
        )
    if offsets[0] != 0:
        raise InputError(f"offsets of multi-vectors start at 0, not at {offsets[0]}")
    # Compared, not subtracted: a difference of hostile values overflows.
    not_ascending = np.flatnonzero(offsets[1:] <= offsets[:-1])
    if len(not_ascending):
        first = not_ascending[0]
        raise InputError(
            f"offsets of multi-vectors ascend, as every input has at least one row; "
            f"those of input {first} are {offsets[first]} and {offsets[first + 1]}"
        )
    if offsets[-1] != rows:
        raise InputError(f"offsets of multi-vectors end at the number of rows, {rows}, not at {offsets[-1]}")
