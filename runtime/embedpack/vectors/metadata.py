"""Metadata of single vectors and multi-vectors (precision, dimensions, space, codebook): compare, save, load."""

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

# Prefix of the names of a codebook's tensors in files.
CODEBOOK_PREFIX = "codebook."

Vectors = TypeVar("Vectors")


class VectorMetadata(Protocol):
    """Metadata that all vectors have; see `embedpack.vectors.embeddings.Embeddings` for the attributes."""

    @property
    def precision(self) -> Precision:
        """Precision of the codes."""

    @property
    def dimensions(self) -> int:
        """Number of dimensions of the vectors."""

    @property
    def space(self) -> str:
        """Name of the vector space."""

    @property
    def max_pixels(self) -> int | None:
        """Largest area of an image after resizing; None: the model's own limit."""

    @property
    def codebook(self) -> Codebook | None:
        """Codebook of low-bit codes; None for other precisions."""


def check_same_metadata(parts: Sequence[VectorMetadata]) -> None:
    """Check that parts can be concatenated.

    Raises:
        InputError: there are none, or they differ in precision, dimensions, space, max_pixels or codebook.
    """
    if not parts:
        raise InputError("there are no embeddings to concatenate")
    if len({(part.precision, part.dimensions, part.space, part.max_pixels) for part in parts}) > 1:
        raise InputError("embeddings of different precision, dimensions, space or max_pixels cannot be concatenated")
    codebooks = sorted({part.codebook.id for part in parts if part.codebook is not None})
    if len(codebooks) > 1:
        raise InputError(
            f"codes of different codebooks ({', '.join(codebooks)}) cannot be concatenated; embed them again"
        )


def check_comparable(queries: VectorMetadata, documents: VectorMetadata, *, if_dimensions: str) -> None:
    """Check that scores between queries and documents are defined.

    Args:
        queries: vectors of the queries.
        documents: vectors of the documents.
        if_dimensions: remedy in the error message if their dimensions differ.

    Raises:
        InputError: they differ in space or dimensions; or the queries are low-bit codes, and the documents of another
            precision or codebook.
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


def save_vectors(
    path: str | Path, file_format: str, tensors: Mapping[str, npt.NDArray[Any]], vectors: VectorMetadata
) -> None:
    """Write tensors and the metadata of `vectors` to a safetensors file, atomically.

    Raises:
        InputError, CapacityError: the file cannot be written.
    """
    metadata = {
        "format": file_format,
        "precision": vectors.precision,
        "dimensions": str(vectors.dimensions),
        "space": vectors.space,
    }
    if vectors.max_pixels is not None:
        metadata["max_pixels"] = str(vectors.max_pixels)
    codebook = {} if vectors.codebook is None else vectors.codebook.tensors(CODEBOOK_PREFIX)
    write_safetensors(Path(path), {**tensors, **codebook}, metadata)


def load_vectors(
    path: str | Path, file_format: str, names: Sequence[str], make: Callable[..., Vectors], *, mapped: bool
) -> Vectors:
    """Read a file that `save_vectors` wrote.

    Args:
        path: path of the file.
        file_format: expected value of "format" in its metadata.
        names: names of the tensors, the codes first.
        make: constructor of the result; takes the tensors, then the fields of `VectorMetadata` in their order.
        mapped: whether the codes are memory-mapped.

    Raises:
        InputError: the file is missing or truncated, has other content, or `make` rejects the content.
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
    stored = file.metadata.get("format")
    if stored != file_format:
        older = "; an older embedpack wrote it, embed again" if stored == file_format[:-1] + "1" else ""
        raise InputError(f"{expected}, found format {stored!r}{older}")
    if {name for name in file.tensors if not name.startswith(CODEBOOK_PREFIX)} != set(names):
        raise InputError(f"{expected}, found the tensors: {', '.join(file.tensors) or 'none'}")
    for tensor in file.tensors.values():
        # Read as a bit pattern, an 8-bit float would pass for a binary code.
        if tensor.dtype in BIT_PATTERNS:
            raise InputError(f"{expected}, found {tensor.name!r} of type {tensor.dtype}")


def _codebook(file: SafetensorsFile) -> Codebook | None:
    tensors = {name: tensor.raw() for name, tensor in file.tensors.items() if name.startswith(CODEBOOK_PREFIX)}
    return Codebook.from_tensors(tensors, CODEBOOK_PREFIX) if tensors else None


def _dimensions(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= 65_536):
        raise InputError(f"{text!r} is not a number of dimensions")
    return int(text)


def _max_pixels(text: str | None) -> int | None:
    if text is None:
        return None
    if not (re.fullmatch("[0-9]{1,10}", text) and 1 <= int(text) <= 2**31):
        raise InputError(f"{text!r} is not a number of pixels")
    return int(text)
