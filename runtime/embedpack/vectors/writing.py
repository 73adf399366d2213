"""Export of single vectors and multi-vectors to files: JSON lines, npz, safetensors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embedpack.errors import InputError, unknown
from embedpack.storage.atomic import atomic_file
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.metadata import CODEBOOK_PREFIX
from embedpack.vectors.multi_embeddings import MultiEmbeddings

SUFFIXES = (".jsonl", ".npz", ".safetensors")


def check_suffix(path: Path) -> None:
    """Raise InputError if the suffix of an output file is not in SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: {unknown('ending', path.suffix, SUFFIXES)}")


def is_stream(path: Path | None) -> bool:
    """True if the format is written row by row; the other formats need whole arrays."""
    return path is None or path.suffix == ".jsonl"


def write_stream(path: Path | None, parts: Iterable[tuple[list[str], Embeddings | MultiEmbeddings]]) -> None:
    """Write embeddings with their ids as JSON lines, part by part, to a file or (None) standard output.

    Raises:
        InputError, CapacityError: the file cannot be written; no partial file remains.
    """
    lines = (line for ids, embeddings in parts for line in _json_lines(ids, embeddings))
    if path is None:
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        return
    with atomic_file(path) as stream:
        stream.writelines(lines)


def write_vectors(path: Path | None, ids: list[str], embeddings: Embeddings | MultiEmbeddings) -> None:
    """Write embeddings in the format of the file's suffix; None prints JSON lines.

    jsonl: {"id", "embedding"} per line, the codes as numbers; a list of lists for multi-vectors.
    npz: ids, codes, precision, dimensions, space; offsets of multi-vectors; max_pixels if it was set; the tensors of
        the codebook (codebook.center, ...) if there is one.
    safetensors: the format of `Embeddings.load` and `MultiEmbeddings.load`, without ids.

    Raises:
        InputError, CapacityError: the file cannot be written; no partial file remains.
    """
    if path is not None:
        check_suffix(path)
    if path is None or path.suffix == ".jsonl":
        write_stream(path, [(ids, embeddings)])
    elif path.suffix == ".safetensors":
        embeddings.save(path)
    else:
        with atomic_file(path) as stream:
            np.savez(stream, **_arrays(ids, embeddings))


def _arrays(ids: list[str], embeddings: Embeddings | MultiEmbeddings) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "ids": np.array(ids),
        **{name: getattr(embeddings, name) for name in embeddings.tensor_names},
        "precision": np.array(embeddings.precision),
        "dimensions": np.array(embeddings.dimensions),
        "space": np.array(embeddings.space),
    }
    if embeddings.max_pixels is not None:
        arrays["max_pixels"] = np.array(embeddings.max_pixels)
    if embeddings.codebook is not None:
        arrays |= embeddings.codebook.tensors(CODEBOOK_PREFIX)
    return arrays


def _json_lines(ids: list[str], embeddings: Embeddings | MultiEmbeddings) -> Iterator[bytes]:
    multi = isinstance(embeddings, MultiEmbeddings)
    for name, codes in zip(ids, (part.codes for part in embeddings) if multi else embeddings.codes, strict=True):
        # Python has no shortest decimal form of float16.
        values = codes.astype(np.float32) if embeddings.precision == "float16" else codes
        yield msgspec.json.encode({"id": name, "embedding": values.tolist()}) + b"\n"
