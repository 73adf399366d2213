"""Embeddings to files that other programs read: JSON lines, npz, safetensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from embedpack.disk import atomic_file
from embedpack.embeddings import Embeddings
from embedpack.errors import InputError, unknown

SUFFIXES = (".jsonl", ".npz", ".safetensors")


def check_suffix(path: Path) -> None:
    """Refuse a file ending that cannot be written, before any work is done.

    Raises:
        InputError: see above.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: {unknown('ending', path.suffix, SUFFIXES)}")


def write_vectors(path: Path | None, ids: list[str], embeddings: Embeddings) -> None:
    """Write embeddings; the file's ending decides on the format, None prints JSON lines.

    jsonl: {"id", "embedding"} a line, the codes as numbers. npz: ids, codes, precision, dimensions, space.
    safetensors: what `Embeddings.load` reads, rows in the order of the texts.

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
            np.savez(
                stream,
                ids=np.array(ids),
                codes=embeddings.codes,
                precision=np.array(embeddings.precision),
                dimensions=np.array(embeddings.dimensions),
                space=np.array(embeddings.space),
            )


def _json_lines(ids: list[str], embeddings: Embeddings) -> Iterator[bytes]:
    for name, row in zip(ids, embeddings.codes, strict=True):
        # float16 has no shortest decimal form of its own in Python.
        values = row.astype(np.float32).tolist() if embeddings.precision == "float16" else row.tolist()
        yield msgspec.json.encode({"id": name, "embedding": values}) + b"\n"
