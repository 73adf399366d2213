"""What single vectors and multi-vectors share: a precision, dimensions and a space, compared, saved and loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.storage.safetensors import BIT_PATTERNS, SafetensorsFile, open_safetensors, write_safetensors
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Precision, check_precision, is_low_bit

# In front of the names of the tensors of a codebook, in files.
CODEBOOK = "codebook."

Made = TypeVar("Made")


class Kind(Protocol):
    """Vectors that know what they are; see `embedpack.vectors.embeddings.Embeddings` for the attributes."""

    @property
    def precision(self) -> Precision:
        """How the vectors are stored."""

    @property
    def dimensions(self) -> int:
        """Dimensions of the vectors that the codes stand for."""

    @property
    def space(self) -> str:
        """Name of the vector space."""

    @property
    def max_pixels(self) -> int | None:
        """Area to which images were brought."""

    @property
    def codebook(self) -> Codebook | None:
        """What made the codes, where it is needed to read them."""


def check_same_kind(parts: Sequence[Kind]) -> None:
    """Refuse parts that do not make one whole.

    Raises:
        InputError: there are none, or they differ in precision, dimensions, space, max_pixels or codebook.
    """
    if not parts:
        raise InputError("there are no embeddings to concatenate")
    if len({(part.precision, part.dimensions, part.space, part.max_pixels) for part in parts}) > 1:
        raise InputError("embeddings of different precision, dimensions, space or max_pixels cannot be concatenated")
    books = sorted({part.codebook.id for part in parts if part.codebook is not None})
    if len(books) > 1:
        raise InputError(f"codes of different codebooks ({', '.join(books)}) cannot be concatenated; embed them again")


def check_comparable(queries: Kind, documents: Kind, *, if_dimensions: str) -> None:
    """Refuse vectors between which there is no score.

    Args:
        queries: one side.
        documents: the other.
        if_dimensions: what to do where the dimensions differ.

    Raises:
        InputError: see above.
    """
    if queries.space != documents.space:
        raise InputError(f"vectors of different models or tasks: {queries.space!r} and {documents.space!r}")
    if queries.dimensions != documents.dimensions:
        raise InputError(
            f"queries have {queries.dimensions} dimensions, documents {documents.dimensions}; {if_dimensions}"
        )
    if not is_low_bit(queries.precision):
        return
    instead = "embed the queries as float32, float16 or int8"
    if queries.precision != documents.precision:
        raise InputError(
            f"{queries.precision} queries are scored against {queries.precision} documents only, "
            f"not against {documents.precision} documents; {instead}"
        )
    assert queries.codebook is not None
    assert documents.codebook is not None
    if queries.codebook.id != documents.codebook.id:
        raise InputError(
            f"queries were coded with the codebook {queries.codebook.id}, documents with {documents.codebook.id}; "
            f"{instead}"
        )


def save_kind(path: str | Path, file_format: str, tensors: Mapping[str, npt.NDArray[Any]], kind: Kind) -> None:
    """Write tensors and what they are to a safetensors file; it appears whole or not at all.

    Raises:
        InputError, CapacityError: the file cannot be written.
    """
    metadata = {
        "format": file_format,
        "precision": kind.precision,
        "dimensions": str(kind.dimensions),
        "space": kind.space,
    }
    if kind.max_pixels is not None:
        metadata["max_pixels"] = str(kind.max_pixels)
    codebook = {} if kind.codebook is None else kind.codebook.tensors(CODEBOOK)
    write_safetensors(Path(path), {**tensors, **codebook}, metadata)


def load_kind(
    path: str | Path, file_format: str, names: Sequence[str], make: Callable[..., Made], *, mapped: bool
) -> Made:
    """Read what `save_kind` wrote: `make` of the tensors in the order of `names`, then of the fields of `Kind`.

    With `mapped` the first tensor, the codes, is a memory map.

    Raises:
        InputError: the file is missing, cut short, or holds something else, or `make` refuses what it holds.
    """
    path = Path(path)
    file = open_safetensors(path)
    try:
        _check_format(file, file_format, names)
        dimensions = _dimensions(file.metadata.get("dimensions", ""))
        if "space" not in file.metadata:
            raise InputError("the metadata has no 'space'")
        precision = check_precision(file.metadata.get("precision", ""))
        max_pixels = _max_pixels(file.metadata.get("max_pixels"))
    except InputError as cause:
        raise InputError(f"{path}: {cause}") from cause
    first, *others = (file.tensors[name] for name in names)
    arrays = [first.mapped() if mapped else first.raw(), *(tensor.raw() for tensor in others)]
    try:
        return make(*arrays, precision, dimensions, file.metadata["space"], max_pixels, _codebook(file))
    except InputError as cause:
        raise InputError(f"{path}: {cause}") from cause


def _check_format(file: SafetensorsFile, file_format: str, names: Sequence[str]) -> None:
    expected = f"expected embeddings saved by embedpack ({file_format})"
    found = file.metadata.get("format")
    if found != file_format:
        older = "; an older embedpack wrote it, embed again" if found == file_format[:-1] + "1" else ""
        raise InputError(f"{expected}, found format {found!r}{older}")
    if {name for name in file.tensors if not name.startswith(CODEBOOK)} != set(names):
        raise InputError(f"{expected}, found the tensors: {', '.join(file.tensors) or 'none'}")
    for tensor in file.tensors.values():
        # Read as a bit pattern, an 8-bit float would pass for a binary code.
        if tensor.dtype in BIT_PATTERNS:
            raise InputError(f"{expected}, found {tensor.name!r} of type {tensor.dtype}")


def _codebook(file: SafetensorsFile) -> Codebook | None:
    tensors = {name: tensor.raw() for name, tensor in file.tensors.items() if name.startswith(CODEBOOK)}
    return Codebook.from_tensors(tensors, CODEBOOK) if tensors else None


def _dimensions(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= 65_536):
        raise InputError(f"{text!r} is no number of dimensions")
    return int(text)


def _max_pixels(text: str | None) -> int | None:
    if text is None:
        return None
    if not (re.fullmatch("[0-9]{1,10}", text) and 1 <= int(text) <= 2**31):
        raise InputError(f"{text!r} is no number of pixels")
    return int(text)
