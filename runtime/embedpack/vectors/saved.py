"""Files of vectors: safetensors or npz, with the same names of metadata and arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, unknown
from embedpack.storage.npz import is_npz, read_npz, write_npz
from embedpack.storage.safetensors import BIT_PATTERNS, open_safetensors, write_safetensors
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.ids import Ids, ids_from_bytes

# Prefix of the names of a codebook's arrays.
CODEBOOK_PREFIX = "codebook."
IDS = "ids"
NPZ, SAFETENSORS = ".npz", ".safetensors"
# Metadata of an npz file are arrays without an axis.
METADATA = ("format", "precision", "dimensions", "space", "max_pixels", "normalized", "similarity", "int8_scale")


@dataclass(frozen=True)
class Layout:
    """Layout of a file: "format" in its metadata, and the names of its arrays beside codebook and ids."""

    file_format: str
    names: Sequence[str]

    def check(self, metadata: Mapping[str, str], names: Iterable[str]) -> None:
        """Raise InputError unless the metadata and the names of the arrays are those of this layout."""
        expected = f"expected embeddings saved by embedpack ({self.file_format})"
        stored = metadata.get("format")
        if stored != self.file_format:
            older = "; an older embedpack wrote it, embed again" if stored == self.file_format[:-1] + "1" else ""
            raise InputError(f"{expected}, found format {stored!r}{older}")
        own = {name for name in names if not name.startswith(CODEBOOK_PREFIX) and name != IDS}
        if own != set(self.names):
            raise InputError(f"{expected}, found the tensors: {', '.join(names) or 'none'}")


@dataclass(frozen=True, eq=False)
class SavedVectors:
    """Content of a file of vectors: metadata as texts, arrays by name."""

    metadata: Mapping[str, str]
    arrays: Mapping[str, npt.NDArray[Any]]

    def text(self, name: str) -> str:
        """Entry of the metadata; InputError without it."""
        if name not in self.metadata:
            raise InputError(f"the metadata has no {name!r}")
        return self.metadata[name]

    def number(self, name: str, largest: int) -> int:
        """Number from 1 to `largest` in the metadata; InputError for anything else."""
        text = self.metadata.get(name, "")
        # No more digits than the largest number has, as the text of a hostile file may be long.
        if not (re.fullmatch(f"[0-9]{{1,{len(str(largest))}}}", text) and 1 <= int(text) <= largest):
            raise InputError(f"{text!r} is not a number of {name.removeprefix('max_')}")
        return int(text)

    def positive(self, name: str) -> float:
        """Positive number in the metadata; InputError for anything else."""
        text = self.metadata.get(name, "")
        value = float(text) if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", text) else 0.0
        if not 0 < value < math.inf:
            raise InputError(f"{text!r} is no positive number for {name}")
        return value

    def codebook(self) -> Codebook | None:
        """Codebook of low-bit codes, if there is one; InputError if it is incomplete."""
        arrays = {name: array for name, array in self.arrays.items() if name.startswith(CODEBOOK_PREFIX)}
        return Codebook.from_tensors(arrays, CODEBOOK_PREFIX) if arrays else None

    def ids(self) -> Ids:
        """Ids, if there are any; InputError if they cannot be read."""
        return ids_from_bytes(self.arrays[IDS]) if IDS in self.arrays else None


def write_saved(path: Path, saved: SavedVectors) -> None:
    """Write a file atomically: npz by its ending, else safetensors.

    Raises:
        InputError, CapacityError: the file cannot be written, or has an ending of another format.
    """
    if path.suffix == NPZ:
        metadata = {name: np.array(int(text) if text.isdecimal() else text) for name, text in saved.metadata.items()}
        write_npz(path, {**metadata, **saved.arrays})
    elif path.suffix in ("", SAFETENSORS):
        write_safetensors(path, saved.arrays, saved.metadata)
    else:
        raise InputError(f"{path}: {unknown('ending', path.suffix, (SAFETENSORS, NPZ))}")


def open_saved(path: Path, layout: Layout, *, mapped: bool = False) -> SavedVectors:
    """Read a file of vectors; if `mapped`, the first array of the layout is memory-mapped.

    Raises:
        InputError: the file is missing, damaged, or of another layout; or an npz file is to be mapped.
    """
    if path.suffix == ".jsonl":
        raise InputError(f"{path}: JSON lines have no metadata to load vectors from; write .safetensors or .npz")
    return _open_npz(path, layout, mapped) if is_npz(path) else _open_safetensors(path, layout, mapped)


def _open_npz(path: Path, layout: Layout, mapped: bool) -> SavedVectors:
    if mapped:
        raise InputError(f"{path}: an npz file cannot be memory-mapped; save it as .safetensors")
    arrays = read_npz(path)
    metadata = {name: str(array) for name, array in arrays.items() if name in METADATA and array.ndim == 0}
    arrays = {name: array for name, array in arrays.items() if name not in metadata}
    _check(path, layout, metadata, arrays)
    return SavedVectors(metadata, arrays)


def _open_safetensors(path: Path, layout: Layout, mapped: bool) -> SavedVectors:
    file = open_safetensors(path)
    # Before anything is read: the file may be gigabytes of something else.
    _check(path, layout, file.metadata, file.tensors)
    for tensor in file.tensors.values():
        # Read as a bit pattern, an 8-bit float would pass for a binary code.
        if tensor.dtype in BIT_PATTERNS:
            raise InputError(
                f"{path}: expected embeddings saved by embedpack ({layout.file_format}), "
                f"found {tensor.name!r} of type {tensor.dtype}"
            )
    first = layout.names[0] if mapped else None
    return SavedVectors(
        file.metadata,
        {name: tensor.mapped() if name == first else tensor.raw() for name, tensor in file.tensors.items()},
    )


def _check(path: Path, layout: Layout, metadata: Mapping[str, str], names: Iterable[str]) -> None:
    try:
        layout.check(metadata, names)
    except InputError as cause:
        raise InputError(f"{path}: {cause}") from cause
