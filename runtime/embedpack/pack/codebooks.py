"""File calibration/<task>.safetensors of a pack: codebooks of a task's single vectors and multi-vectors."""

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
    """Codebooks of a task; `token` is None if the pack has no multi-vectors."""

    single: Codebook
    token: Codebook | None


def write_codebooks(path: Path, codebooks: Codebooks) -> None:
    """Write the file; equal codebooks give equal bytes."""
    token = {} if codebooks.token is None else codebooks.token.tensors(TOKEN_PREFIX)
    write_safetensors(path, {**codebooks.single.tensors(), **token}, {})


def open_codebooks(pack: Pack, task: str) -> Codebooks:
    """Read the codebooks of a task; PackError if the file is missing or changed, or does not fit the manifest."""
    manifest = pack.manifest
    file = manifest.tasks[task].codes.file
    codebooks = read_codebooks(pack.checked_path(file), manifest.dimensions, manifest.multi_vector_dimensions)
    # It was opened by name a second time.
    pack.checked_path(file)
    try:
        for dimensions in manifest.truncate_dims:
            codebooks.single.check_dimensions(dimensions)
    except InputError as cause:
        raise PackError(f"{pack.folder / file}: {cause}, one of its truncate_dims") from cause
    return codebooks


def read_codebooks(path: Path, dimensions: int, token_dimensions: int | None) -> Codebooks:
    """Read codebooks that `write_codebooks` wrote; PackError for invalid content or unexpected dimensions.

    `token_dimensions` None: no codebook of multi-vectors.
    """
    tensors = {name: tensor.raw() for name, tensor in open_safetensors(path, PackError).tensors.items()}
    token_names = [name for name in tensors if name.startswith(TOKEN_PREFIX)]
    token_tensors = {name: tensors.pop(name) for name in token_names}
    try:
        single = Codebook.from_tensors(tensors)
        token = Codebook.from_tensors(token_tensors, TOKEN_PREFIX) if token_tensors else None
    except InputError as cause:
        raise PackError(f"{path}: {cause}") from cause
    stored = (single.dimensions, token and token.dimensions)
    if stored != (dimensions, token_dimensions):
        raise PackError(
            f"{path}: codebooks of {stored[0]} dimensions for vectors and {stored[1]} for tokens; "
            f"the pack has {dimensions} and {token_dimensions}"
        )
    return Codebooks(single, token)
