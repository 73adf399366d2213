"""Export of single vectors and multi-vectors to files: JSON lines, npz, safetensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from embedpack.errors import OptionError, unknown
from embedpack.storage.atomic import atomic_file
from embedpack.storage.standard_output import write_lines
from embedpack.vectors.codes import Codes
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.multi_embeddings import MultiEmbeddings

SUFFIXES = (".jsonl", ".npz", ".safetensors")


def check_suffix(path: Path) -> None:
    """Raise OptionError if the suffix of an output file is not in SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise OptionError(f"{path}: {unknown('ending', path.suffix, SUFFIXES)}")


def is_stream(path: Path | None) -> bool:
    """True if the format is written row by row; the other formats need whole arrays."""
    return path is None or path.suffix == ".jsonl"


def write_stream(path: Path | None, parts: Iterable[tuple[Sequence[str], Embeddings | MultiEmbeddings]]) -> None:
    """Write embeddings with their ids as JSON lines, part by part, to a file or (None) standard output.

    Raises:
        InputError, CapacityError: the file cannot be written; no partial file remains.
    """
    lines = (line for ids, embeddings in parts for line in _json_lines(ids, embeddings))
    if path is None:
        write_lines(lines)
        return
    with atomic_file(path) as stream:
        stream.writelines(lines)


def write_vectors(path: Path | None, ids: Sequence[str], embeddings: Embeddings | MultiEmbeddings) -> None:
    """Write embeddings with their ids in the format of the file's suffix; None prints JSON lines.

    jsonl: {"id", "embedding"} per line, the codes as numbers; a list of lists for multi-vectors.
    npz, safetensors: the formats of `Embeddings.load` and `MultiEmbeddings.load`: codes, precision, dimensions, space,
        ids as the bytes of a JSON array; offsets of multi-vectors; max_pixels if it was set; the tensors of the
        codebook (codebook.center, ...) if there is one.

    Raises:
        InputError, CapacityError: the file cannot be written; no partial file remains.
    """
    if path is not None:
        check_suffix(path)
    if path is None or is_stream(path):
        write_stream(path, [(ids, embeddings)])
    else:
        replace(embeddings, ids=tuple(ids)).save(path)


def _json_lines(ids: Sequence[str], embeddings: Embeddings | MultiEmbeddings) -> Iterator[bytes]:
    multi = isinstance(embeddings, MultiEmbeddings)
    for name, codes in zip(ids, (part.codes for part in embeddings) if multi else embeddings.codes, strict=True):
        vectors = b"[" + b",".join(map(_json_array, codes)) + b"]" if multi else _json_array(codes)
        yield b'{"id":' + msgspec.json.encode(name) + b',"embedding":' + vectors + b"}\n"


def _json_array(codes: Codes) -> bytes:
    """Numbers of a code; floats in the shortest form that gives the same float32."""
    if codes.dtype.kind != "f":
        return msgspec.json.encode(codes.tolist())
    return f"[{','.join(codes.astype(np.float32).astype('U').tolist())}]".encode()
