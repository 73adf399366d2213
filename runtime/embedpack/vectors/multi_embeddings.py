"""Returned multi-vectors: one vector per token of each input, as codes with all that is needed to use them later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Codes, Float32, Precision, check_codes, decode
from embedpack.vectors.metadata import check_same_kind, load_kind, save_kind

FILE_FORMAT = "embedpack-multi-embeddings-2"

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MultiEmbeddings:
    """Multi-vectors of several inputs in one precision: every input has as many vectors as it has tokens.

    Attributes:
        codes: array [rows, width], the vectors of all inputs one after the other; type and width as the table in
            `embedpack.vectors.codes` says.
        offsets: int64 [n + 1]; rows `offsets[i]:offsets[i + 1]` are those of input i, at least one.
        precision: "float32", "float16", "int8", "4bit", "2bit", "ternary" or "binary".
        dimensions: dimensions of the vectors that the codes stand for.
        space: name of the vector space (model, task, weights' source); only vectors of one space can be compared.
        max_pixels: area to which images were brought; None: the model's own limit.
        codebook: what made the codes; None: of float32, float16 and int8, which need none.
    """

    codes: Codes
    offsets: Int64
    precision: Precision
    dimensions: int
    space: str
    max_pixels: int | None = None
    codebook: Codebook | None = None

    def __post_init__(self) -> None:
        check_codes(self.codes, self.precision, self.dimensions, self.codebook)
        _check_offsets(self.offsets, len(self.codes))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, inputs: int | np.integer[Any] | slice | npt.NDArray[Any]) -> MultiEmbeddings:
        """Some of the inputs; an int gives the one input as MultiEmbeddings of length 1."""
        if isinstance(inputs, int | np.integer):
            if not -len(self) <= inputs < len(self):
                raise IndexError(f"input {inputs} of {len(self)} multi-vectors")
            inputs = slice(inputs, inputs + 1 or None)
        if isinstance(inputs, slice):
            start, stop, step = inputs.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
        chosen = np.arange(len(self))[inputs]
        if chosen.ndim != 1:
            raise IndexError(f"multi-vectors have one axis of inputs; the index has {chosen.ndim} axes")
        return self._gathered(chosen)

    def __iter__(self) -> Iterator[MultiEmbeddings]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        # Without this method numpy would take the object for a nested sequence and descend without end.
        raise TypeError("multi-vectors are no one array: inputs differ in their number of rows; use .decode()")

    @property
    def counts(self) -> Int64:
        """Rows of each input, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return self.codes.nbytes

    def decode(self) -> list[Float32]:
        """The vectors of each input, float32 [rows of the input, dimensions], of unit length.

        Raises:
            InputError: the codes hold what no vector has.
        """
        vectors = decode(self.codes, self.precision, self.dimensions, self.codebook)
        return [vectors[start:stop] for start, stop in pairwise(self.offsets.tolist())]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; it appears whole or not at all.

        Raises:
            InputError, CapacityError: the file cannot be written.
        """
        save_kind(path, FILE_FORMAT, {"codes": self.codes, "offsets": self.offsets}, self)

    @classmethod
    def load(cls, path: str | Path, mapped: bool = False) -> MultiEmbeddings:
        """Read what `save` wrote; `mapped` leaves the codes on the disk until they are used.

        Raises:
            InputError: the file is missing, cut short, or holds something else.
        """
        return load_kind(path, FILE_FORMAT, ("codes", "offsets"), cls, mapped=mapped)

    def _between(self, start: int, stop: int) -> MultiEmbeddings:
        """Inputs that lie side by side; their codes are not copied."""
        offsets = self.offsets[start : stop + 1]
        return replace(self, codes=self.codes[offsets[0] : offsets[-1]], offsets=offsets - offsets[0])

    def _gathered(self, inputs: npt.NDArray[np.intp]) -> MultiEmbeddings:
        """Inputs in any order."""
        counts = self.counts[inputs]
        offsets = offsets_of(counts)
        rows = np.repeat(self.offsets[inputs] - offsets[:-1], counts) + np.arange(offsets[-1])
        return replace(self, codes=self.codes[rows], offsets=offsets)


def offsets_of(counts: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Int64:
    """Offsets of inputs with that many rows each, int64 [n + 1]."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def concatenate_multi(parts: Sequence[MultiEmbeddings]) -> MultiEmbeddings:
    """All inputs of several MultiEmbeddings of the same kind, in order.

    Raises:
        InputError: there are none, or they differ in precision, dimensions, space, max_pixels or codebook.
    """
    check_same_kind(parts)
    offsets = offsets_of(np.concatenate([part.counts for part in parts]))
    return replace(parts[0], codes=np.concatenate([part.codes for part in parts]), offsets=offsets)


def _check_offsets(offsets: Int64, rows: int) -> None:
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype != np.int64:
        expected = "[inputs + 1] of type int64"
        raise InputError(
            f"offsets of multi-vectors are an array {expected}, not {list(offsets.shape)} of type {offsets.dtype}"
        )
    if offsets[0] != 0:
        raise InputError(f"offsets of multi-vectors start at 0, not at {offsets[0]}")
    # Compared, not subtracted: a difference of hostile values overflows.
    flat = np.flatnonzero(offsets[1:] <= offsets[:-1])
    if len(flat):
        first = flat[0]
        raise InputError(
            f"offsets of multi-vectors ascend, as every input has at least one row; "
            f"those of input {first} are {offsets[first]} and {offsets[first + 1]}"
        )
    if offsets[-1] != rows:
        raise InputError(f"offsets of multi-vectors end at the number of rows, {rows}, not at {offsets[-1]}")
