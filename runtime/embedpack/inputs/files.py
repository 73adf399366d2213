"""Texts, images and PDF pages from several files, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpack.errors import InputError
from embedpack.inputs.pdf import pdf_pages
from embedpack.inputs.text_files import Texts

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
PDF_SUFFIX = ".pdf"


@dataclass(frozen=True)
class InputPart:
    """Inputs of one kind that follow each other.

    Attributes:
        source: the file, or the first of several images.
        items: what `Embedder.encode` takes; an iterator where they must not be held all at once.
        ids: of the items; those of an iterator are there once it was taken.
        images: whether the items are images.
    """

    source: str
    items: list[Any] | Iterator[Any]
    ids: list[str]
    images: bool


def read_parts(sources: Iterable[str], read_texts: Callable[[str], Texts]) -> list[InputPart]:
    """The inputs of files. Texts are read at once; images and the pages of a PDF when they are taken.

    The id of an image is its path as it was given, that of a page is `path.pdf#1`, counted from 1.

    Args:
        sources: paths; the ending says what is an image or a PDF, all else holds texts.
        read_texts: reads a file of texts.

    Raises:
        InputError: a file cannot be found, or a file of texts cannot be read or holds none.
    """
    parts: list[InputPart] = []
    for source in sources:
        suffix = Path(source).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            _add_image(parts, _found(source))
        elif suffix == PDF_SUFFIX:
            parts.append(_pdf_part(_found(source)))
        else:
            texts = read_texts(source)
            if not texts.texts:
                raise InputError(f"{source}: no texts in it; leave it out, or write it again")
            parts.append(InputPart(source, list(texts.texts), texts.ids, images=False))
    return parts


def _found(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{source}: cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    return path


def _add_image(parts: list[InputPart], path: Path) -> None:
    """Append an image to the images before it, or as a part of its own."""
    if not parts or not parts[-1].images or not isinstance(parts[-1].items, list):
        parts.append(InputPart(str(path), [], [], images=True))
    last = parts[-1].items
    assert isinstance(last, list)
    last.append(path)
    parts[-1].ids.append(str(path))


def _pdf_part(path: Path) -> InputPart:
    ids: list[str] = []

    def pages() -> Iterator[Any]:
        for number, page in enumerate(pdf_pages(path), 1):
            ids.append(f"{path}#{number}")
            yield page

    return InputPart(str(path), pages(), ids, images=True)
