"""Documents as texts with the places of their chunks, for late chunking (Günther et al. 2024, arXiv 2409.04701)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from embedpack.errors import ChunkError, InputError, ItemError
from embedpack.inputs.items import is_blank, text_problem

NO_CHUNKS = "pass a list of texts, the chunks of one document, or a list of such lists"


@dataclass(frozen=True, eq=False)
class Document:
    """A text with its chunks.

    Attributes:
        number: position of the document in the call, counted from 0.
        text: the whole text.
        spans: begin and end of each chunk in the text, in characters, int64 [chunks, 2]. Both ascend; chunks may
            overlap. A token belongs to each chunk that contains its last character.
    """

    number: int
    text: str
    spans: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.spans)


def read_documents(chunks: object) -> list[Document]:
    """Documents of the argument of `Embedder.encode_chunks`.

    Raises:
        InputError: it is no list of texts, and no list of such lists.
        ItemError: a chunk or a document is empty, or cannot be tokenized.
    """
    if not _is_list(chunks) or not chunks:
        raise InputError(
            f"{NO_CHUNKS}, not {f'a {type(chunks).__name__}' if chunks or chunks == '' else 'an empty one'}"
        )
    one = isinstance(chunks[0], str)
    return [joined(number, each) for number, each in enumerate([chunks] if one else chunks)]


def joined(number: int, chunks: object) -> Document:
    """A document of chunks, joined by spaces; each space belongs to the chunk behind it. Errors as `read_documents`."""
    if not _is_list(chunks):
        raise InputError(f"{NO_CHUNKS}: document {number} is not a list")
    if not chunks:
        raise ItemError("document", number, "has no chunks; leave it out")
    for row, chunk in enumerate(chunks):
        _check_chunk(number, row, chunk)
    text = " ".join(chunks)
    if problem := text_problem(text):
        raise ItemError("document", number, problem)
    ends = np.cumsum([len(chunk) + 1 for chunk in chunks]) - 1
    return Document(number, text, np.stack([np.r_[0, ends[:-1]], ends], axis=1))


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _check_chunk(document: int, row: int, chunk: object) -> None:
    if not isinstance(chunk, str):
        raise InputError(f"{NO_CHUNKS}: chunk {row} of document {document} is not a text")
    if is_blank(chunk):
        raise ChunkError(document, row, "is empty; leave it out")
    if problem := text_problem(chunk):
        raise ChunkError(document, row, problem)
