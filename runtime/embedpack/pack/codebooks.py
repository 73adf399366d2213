"""File calibration/<space>.safetensors of a pack: codebooks of a space's single vectors and multi-vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError, PackError
from embedpack.pack.folder import Pack
from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.codebook import Codebook

# Prefix of the names of the tensors of the multi-vectors' codebook.
TOKEN_PREFIX = "token."


@dataclass(frozen=True)
class Codebooks:
    """Codebooks of a space; None: the pack has no such head."""

    single: Codebook | None
    multi: Codebook | None


def write_codebooks(path: Path, codebooks: Codebooks) -> None:
    """Write the file; equal codebooks give equal bytes."""
    single = {} if codebooks.single is None else codebooks.single.tensors()
    multi = {} if codebooks.multi is None else codebooks.multi.tensors(TOKEN_PREFIX)
    write_safetensors(path, {**single, **multi}, {})


def open_codebooks(pack: Pack, task: str) -> Codebooks:
    """Codebooks of a task's space; PackError if the file is missing or changed, or does not fit the manifest."""
    single, multi = pack.manifest.single, pack.manifest.multi
    file = pack.manifest.codes(task).codebooks
    codebooks = read_codebooks(
        pack.checked_path(file),
        None if single is None else single.dimensions,
        None if multi is None else multi.dimensions,
    )
    # It was opened by name a second time.
    pack.checked_path(file)
    try:
        for codebook, head in ((codebooks.single, single), (codebooks.multi, multi)):
            if codebook is not None and head is not None:
                for dimensions in head.truncate_dims:
                    codebook.check_dimensions(dimensions)
    except InputError as cause:
        raise PackError(f"{pack.folder / file}: {cause}, one of its truncate_dims") from cause
    return codebooks


def read_codebooks(path: Path, dimensions: int | None, token_dimensions: int | None) -> Codebooks:
    """Read codebooks that `write_codebooks` wrote; PackError for invalid content or unexpected dimensions.

    `dimensions` None: no codebook of single vectors; `token_dimensions` None: none of multi-vectors.
    """
    tensors = {name: tensor.raw() for name, tensor in open_safetensors(path, PackError).tensors.items()}
    token_names = [name for name in tensors if name.startswith(TOKEN_PREFIX)]
    token_tensors = {name: tensors.pop(name) for name in token_names}
    try:
        single = Codebook.from_tensors(tensors) if tensors else None
        multi = Codebook.from_tensors(token_tensors, TOKEN_PREFIX) if token_tensors else None
    except InputError as cause:
        raise PackError(f"{path}: {cause}") from cause
    stored = (single and single.dimensions, multi and multi.dimensions)
    if stored != (dimensions, token_dimensions):
        raise PackError(
            f"{path}: codebooks of {stored[0]} dimensions for vectors and {stored[1]} for tokens; "
            f"the pack has {dimensions} and {token_dimensions}"
        )
    return Codebooks(single, multi)
