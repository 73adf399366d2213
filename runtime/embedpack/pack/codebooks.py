"""calibration/<task>.safetensors of a pack: the codebooks of a task's single vectors and multi-vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError, PackError
from embedpack.pack.folder import Pack
from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.codebook import Codebook

# In front of the names of the tensors that belong to multi-vectors.
TOKEN = "token."


@dataclass(frozen=True)
class Codebooks:
    """Codebooks of a task; `token` is None where there are no multi-vectors."""

    single: Codebook
    token: Codebook | None


def write_codebooks(path: Path, codebooks: Codebooks) -> None:
    """Write the file; the same codebooks always give the same bytes."""
    token = {} if codebooks.token is None else codebooks.token.tensors(TOKEN)
    write_safetensors(path, {**codebooks.single.tensors(), **token}, {})


def open_codebooks(pack: Pack, task: str) -> Codebooks:
    """The codebooks of a task of a pack, their digest checked.

    Raises:
        PackError: the file is missing or changed, or its codebooks are not those of such a pack.
    """
    manifest = pack.manifest
    file = manifest.tasks[task].codes.file
    pack.read(file)
    codebooks = read_codebooks(pack.path(file), manifest.dimensions, manifest.multi_vector_dimensions)
    try:
        for dimensions in manifest.truncate_dims:
            codebooks.single.check_dimensions(dimensions)
    except InputError as cause:
        raise PackError(f"{pack.folder / file}: {cause}, which the pack allows") from cause
    return codebooks


def read_codebooks(path: Path, dimensions: int, token_dimensions: int | None) -> Codebooks:
    """Read the file of a pack with vectors of these dimensions; `token_dimensions` is None: it has no multi-vectors.

    Raises:
        PackError: the file is not what `write_codebooks` writes, or its codebooks have other dimensions.
    """
    tensors = {name: tensor.raw() for name, tensor in open_safetensors(path, PackError).tensors.items()}
    of_tokens = {name: tensor for name, tensor in tensors.items() if name.startswith(TOKEN)}
    of_vectors = {name: tensor for name, tensor in tensors.items() if name not in of_tokens}
    try:
        single = Codebook.from_tensors(of_vectors)
        token = Codebook.from_tensors(of_tokens, TOKEN) if of_tokens else None
    except InputError as cause:
        raise PackError(f"{path}: {cause}") from cause
    found = (single.dimensions, token and token.dimensions)
    if found != (dimensions, token_dimensions):
        raise PackError(
            f"{path}: codebooks of {found[0]} dimensions for vectors and {found[1]} for tokens; "
            f"the pack has {dimensions} and {token_dimensions}"
        )
    return Codebooks(single, token)
