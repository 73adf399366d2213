"""Metadata of single vectors and multi-vectors (precision, dimensions, space, codebook): compare, save, load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Codes, Precision, check_precision, is_low_bit
from embedpack.vectors.ids import Ids, ids_to_bytes
from embedpack.vectors.metric import UNIT, Metric
from embedpack.vectors.saved import CODEBOOK_PREFIX, IDS, Layout, SavedVectors, open_saved, write_saved


class CodedVectors:
    """Base of `Embeddings` and `MultiEmbeddings`: the fields that both have, and their file."""

    # "format" in the metadata of a file, and the names of its tensors: fields of the class, the codes first.
    file_format: ClassVar[str]
    tensor_names: ClassVar[tuple[str, ...]]
    # True if vectors may have another metric than `UNIT`.
    has_metric: ClassVar[bool] = False

    codes: Codes
    precision: Precision
    dimensions: int
    space: str
    max_pixels: int | None
    codebook: Codebook | None
    ids: Ids
    metric: Metric = UNIT

    def __repr__(self) -> str:
        count = f"{len(self)} x {self.dimensions} {self.precision}"  # type: ignore[arg-type]  # subclasses have __len__
        ids = "" if self.ids is None else ", with ids"
        return f"{type(self).__name__}({count}, space={self.space!r}{ids})"

    @property
    def nbytes(self) -> int:
        """Size of the codes in bytes."""
        return self.codes.nbytes

    def save(self, path: str | Path) -> None:
        """Write a file atomically: .npz if the path has this ending, else safetensors.

        Raises:
            InputError, CapacityError: the file cannot be written, or has an ending of another format.
        """
        write_saved(Path(path), SavedVectors(self._metadata(), self._arrays()))

    @classmethod
    def load(cls, path: str | Path, mapped: bool = False) -> Self:
        """Read a file that `save` or `embedpack embed` wrote: .npz or safetensors.

        Args:
            path: path of the file.
            mapped: whether the codes are memory-mapped: read from disk when they are used. Of safetensors only.

        Raises:
            InputError: the file is missing or truncated, or has other content.
        """
        path = Path(path)
        file = open_saved(path, Layout(cls.file_format, cls.tensor_names), mapped=mapped)
        make: Callable[..., Self] = cls
        try:
            dimensions = file.number("dimensions", 65_536)
            space = file.text("space")
            precision = check_precision(file.text("precision"))
            max_pixels = file.number("max_pixels", 2**31) if "max_pixels" in file.metadata else None
            arrays = [file.arrays[name] for name in cls.tensor_names]
            metric = _metric(file)
            fields = *arrays, precision, dimensions, space, max_pixels, file.codebook(), file.ids()
            if metric == UNIT:
                return make(*fields)
            if not cls.has_metric:
                raise InputError(f"multi-vectors have length 1, not {metric}")
            return make(*fields, metric)
        except InputError as cause:
            raise InputError(f"{path}: {cause}") from cause

    def _metadata(self) -> dict[str, str]:
        metadata = {
            "format": self.file_format,
            "precision": self.precision,
            "dimensions": str(self.dimensions),
            "space": self.space,
        }
        if self.max_pixels is not None:
            metadata["max_pixels"] = str(self.max_pixels)
        if not self.metric.normalized:
            metadata |= {"normalized": "false", "similarity": self.metric.similarity}
        if self.metric.int8_scale is not None:
            metadata["int8_scale"] = repr(self.metric.int8_scale)
        return metadata

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {name: getattr(self, name) for name in self.tensor_names}
        if self.ids is not None:
            arrays[IDS] = ids_to_bytes(self.ids)
        return arrays if self.codebook is None else arrays | self.codebook.tensors(CODEBOOK_PREFIX)


def _metric(file: SavedVectors) -> Metric:
    """Metric in the metadata of a file; InputError if it is damaged."""
    normalized, similarity = file.metadata.get("normalized", "true"), file.metadata.get("similarity", "cosine")
    if normalized not in ("true", "false") or similarity not in ("cosine", "dot"):
        raise InputError(
            f"normalized is {normalized!r}, similarity {similarity!r}; expected true or false, cosine or dot"
        )
    scale = file.positive("int8_scale") if "int8_scale" in file.metadata else None
    return Metric(normalized == "true", "dot" if similarity == "dot" else "cosine", scale)


def check_same_metadata(parts: Sequence[CodedVectors]) -> None:
    """Raise InputError for parts that cannot be concatenated: none, or of different metadata."""
    if not parts:
        raise InputError("there are no embeddings to concatenate; pass at least one part")
    if len({(part.precision, part.dimensions, part.space, part.max_pixels, part.metric) for part in parts}) > 1:
        raise InputError(
            "embeddings of different precision, dimensions, space or max_pixels cannot be concatenated; "
            "embed them with the same options"
        )
    ids = sorted({part.codebook.id for part in parts if part.codebook is not None})
    if len(ids) > 1:
        raise InputError(f"codes of different codebooks ({', '.join(ids)}) cannot be concatenated; embed them again")


def check_comparable(queries: CodedVectors, documents: CodedVectors, *, if_dimensions: str) -> None:
    """Raise InputError if scores are not defined; `if_dimensions` is the remedy for different dimensions.

    Space and dimensions must be equal. Low-bit queries need documents of the same precision and codebook.
    """
    if queries.space != documents.space:
        raise InputError(
            f"vectors of different models or tasks: {queries.space!r} and {documents.space!r}; embed both with one task"
        )
    if queries.metric != documents.metric:
        raise InputError(
            f"vectors with other lengths or another similarity: {queries.metric} and {documents.metric}; embed both "
            "with one pack"
        )
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
