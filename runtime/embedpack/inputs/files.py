"""Texts, images and PDF pages of several files, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError, failed
from embedpack.inputs.items import Input
from embedpack.inputs.pdf import pdf_pages
from embedpack.inputs.text_files import Texts

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
PDF_SUFFIX = ".pdf"


@dataclass(frozen=True)
class InputPart:
    """Consecutive inputs of the file `source`, or of several images from it on: all texts or all images.

    `items` is an iterator if they must not be in memory all at once; their ids are then added as items are taken.
    """

    source: str
    items: list[Input] | Iterator[Input]
    ids: list[str]
    images: bool


def read_parts(sources: Iterable[str], read_texts: Callable[[str], Texts]) -> list[InputPart]:
    """Collect the inputs of files. Texts are read at once; images and the pages of a PDF when they are taken.

    Images and PDFs are recognized by their endings. The id of an image is its path as given in `sources`, the id of the
    first page of a PDF is `path.pdf#1`. InputError if a file cannot be found, or a file of texts cannot be read or is
    empty.
    """
    parts: list[InputPart] = []
    for source in sources:
        suffix = Path(source).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            _add_image(parts, _existing(source))
        elif suffix == PDF_SUFFIX:
            parts.append(_pdf_part(_existing(source)))
        else:
            texts = read_texts(source)
            if not texts.texts:
                raise InputError(f"{source}: no texts in it; leave it out, or write it again")
            parts.append(InputPart(source, [*texts.texts], texts.ids, images=False))
    return parts


def _existing(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{source}: {failed('read', cause)}") from cause
    return path


def _add_image(parts: list[InputPart], path: Path) -> None:
    """Append an image to the part of the images before it, or start a new part."""
    if not parts or not parts[-1].images or not isinstance(parts[-1].items, list):
        parts.append(InputPart(str(path), [], [], images=True))
    last = parts[-1].items
    assert isinstance(last, list)
    last.append(path)
    parts[-1].ids.append(str(path))


def _pdf_part(path: Path) -> InputPart:
    ids: list[str] = []

    def pages() -> Iterator[Input]:
        for number, page in enumerate(pdf_pages(path), 1):
            ids.append(f"{path}#{number}")
            yield page

    return InputPart(str(path), pages(), ids, images=True)
