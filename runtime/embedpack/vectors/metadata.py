"""Metadata of single vectors and multi-vectors (precision, dimensions, space, codebook): compare, save, load."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

from embedpack.errors import InputError
from embedpack.storage.safetensors import BIT_PATTERNS, SafetensorsFile, open_safetensors, write_safetensors
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Codes, Precision, check_precision, is_low_bit

# Prefix of the names of a codebook's tensors in files.
CODEBOOK_PREFIX = "codebook."


class CodedVectors:
    """Base of `Embeddings` and `MultiEmbeddings`: the fields that both have, and their file."""

    # "format" in the metadata of a file, and the names of its tensors: fields of the class, the codes first.
    file_format: ClassVar[str]
    tensor_names: ClassVar[tuple[str, ...]]

    codes: Codes
    precision: Precision
    dimensions: int
    space: str
    max_pixels: int | None
    codebook: Codebook | None

    @property
    def nbytes(self) -> int:
        """Size of the codes in bytes."""
        return self.codes.nbytes

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically.

        Raises:
            InputError, CapacityError: the file cannot be written.
        """
        metadata = {
            "format": self.file_format,
            "precision": self.precision,
            "dimensions": str(self.dimensions),
            "space": self.space,
        }
        if self.max_pixels is not None:
            metadata["max_pixels"] = str(self.max_pixels)
        codebook = {} if self.codebook is None else self.codebook.tensors(CODEBOOK_PREFIX)
        write_safetensors(Path(path), {name: getattr(self, name) for name in self.tensor_names} | codebook, metadata)

    @classmethod
    def load(cls, path: str | Path, mapped: bool = False) -> Self:
        """Read a file that `save` wrote.

        Args:
            path: path of the file.
            mapped: whether the codes are memory-mapped: read from disk when they are used.

        Raises:
            InputError: the file is missing or truncated, or has other content.
        """
        path = Path(path)
        file = open_safetensors(path)
        make: Callable[..., Self] = cls
        try:
            _check_format(file, cls.file_format, cls.tensor_names)
            dimensions = _number(file.metadata.get("dimensions", ""), 65_536, "dimensions")
            if "space" not in file.metadata:
                raise InputError("the metadata has no 'space'")
            precision = check_precision(file.metadata.get("precision", ""))
            max_pixels = None
            if "max_pixels" in file.metadata:
                max_pixels = _number(file.metadata["max_pixels"], 2**31, "pixels")
        except InputError as cause:
            raise InputError(f"{path}: {cause}") from cause
        first, *others = (file.tensors[name] for name in cls.tensor_names)
        arrays = [first.mapped() if mapped else first.raw(), *(tensor.raw() for tensor in others)]
        try:
            return make(*arrays, precision, dimensions, file.metadata["space"], max_pixels, _codebook(file))
        except InputError as cause:
            raise InputError(f"{path}: {cause}") from cause


def check_same_metadata(parts: Sequence[CodedVectors]) -> None:
    """Raise InputError for parts that cannot be concatenated: none, or of different metadata."""
    if not parts:
        raise InputError("there are no embeddings to concatenate")
    if len({(part.precision, part.dimensions, part.space, part.max_pixels) for part in parts}) > 1:
        raise InputError("embeddings of different precision, dimensions, space or max_pixels cannot be concatenated")
    ids = sorted({part.codebook.id for part in parts if part.codebook is not None})
    if len(ids) > 1:
        raise InputError(f"codes of different codebooks ({', '.join(ids)}) cannot be concatenated; embed them again")


def check_comparable(queries: CodedVectors, documents: CodedVectors, *, if_dimensions: str) -> None:
    """Raise InputError if scores are not defined; `if_dimensions` is the remedy for different dimensions.

    Space and dimensions must be equal. Low-bit queries need documents of the same precision and codebook.
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


def _number(text: str, largest: int, unit: str) -> int:
    # No more digits than the largest number has, as the text of a hostile file may be long.
    if not (re.fullmatch(f"[0-9]{{1,{len(str(largest))}}}", text) and 1 <= int(text) <= largest):
        raise InputError(f"{text!r} is not a number of {unit}")
    return int(text)
