"""Single vectors and multi-vectors to files that other programs read: JSON lines, npz, safetensors."""

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
from embedpack.vectors.metadata import CODEBOOK
from embedpack.vectors.multi_embeddings import MultiEmbeddings

SUFFIXES = (".jsonl", ".npz", ".safetensors")


def check_suffix(path: Path) -> None:
    """Refuse a file ending that cannot be written, before any work is done.

    Raises:
        InputError: see above.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: {unknown('ending', path.suffix, SUFFIXES)}")


def is_stream(path: Path | None) -> bool:
    """Whether vectors can be written there as they come; the other formats hold whole arrays."""
    return path is None or path.suffix == ".jsonl"


def write_stream(path: Path | None, parts: Iterable[tuple[list[str], Embeddings]]) -> None:
    """Write embeddings with their ids as JSON lines, part by part; see `write_vectors`.

    Raises:
        InputError, CapacityError: the file cannot be written; nothing is left of it.
    """
    lines = (line for ids, embeddings in parts for line in _json_lines(ids, embeddings))
    if path is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    with atomic_file(path) as stream:
        stream.writelines(lines)


def write_vectors(path: Path | None, ids: list[str], embeddings: Embeddings | MultiEmbeddings) -> None:
    """Write embeddings; the file's ending decides on the format, None prints JSON lines.

    jsonl: {"id", "embedding"} a line, the codes as numbers; of multi-vectors a list of lists. npz: ids, codes,
    precision, dimensions, space, of multi-vectors also offsets, max_pixels where it was chosen, and the tensors of the
    codebook (codebook.center, ...) where there is one. safetensors: what `Embeddings.load` or `MultiEmbeddings.load`
    reads, in the order of the inputs.

    Raises:
        InputError, CapacityError: the file cannot be written; nothing is left of it.
    """
    if path is None:
        for line in _json_lines(ids, embeddings):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    check_suffix(path)
    if path.suffix == ".safetensors":
        embeddings.save(path)
        return
    with atomic_file(path) as stream:
        if path.suffix == ".jsonl":
            stream.writelines(_json_lines(ids, embeddings))
        else:
            np.savez(stream, **_arrays(ids, embeddings))


def _arrays(ids: list[str], embeddings: Embeddings | MultiEmbeddings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ids": np.array(ids),
        "codes": embeddings.codes,
        "precision": np.array(embeddings.precision),
        "dimensions": np.array(embeddings.dimensions),
        "space": np.array(embeddings.space),
    }
    if isinstance(embeddings, MultiEmbeddings):
        found["offsets"] = embeddings.offsets
    if embeddings.max_pixels is not None:
        found["max_pixels"] = np.array(embeddings.max_pixels)
    if embeddings.codebook is not None:
        found |= embeddings.codebook.tensors(CODEBOOK)
    return found


def _json_lines(ids: list[str], embeddings: Embeddings | MultiEmbeddings) -> Iterator[bytes]:
    multi = isinstance(embeddings, MultiEmbeddings)
    for name, codes in zip(ids, (part.codes for part in embeddings) if multi else embeddings.codes, strict=True):
        # float16 has no shortest decimal form of its own in Python.
        values = codes.astype(np.float32) if embeddings.precision == "float16" else codes
        yield msgspec.json.encode({"id": name, "embedding": values.tolist()}) + b"\n"
