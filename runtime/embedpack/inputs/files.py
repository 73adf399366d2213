"""Texts, images and PDF pages of several files, in their order, under ids that are distinct."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedpack.errors import EmbedpackError, InputError, failed
from embedpack.inputs.items import Input
from embedpack.inputs.pdf import pdf_pages
from embedpack.inputs.text_files import TextFileOptions, Texts, read_texts

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
PDF_SUFFIX = ".pdf"

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class InputPart:
    """Consecutive inputs of the file `source`, or of several images from it on: all texts or all images.

    `items` is an iterator if they must not be in memory all at once; their ids are then added as items are taken.
    `texts` None: the part has images.
    """

    source: str
    items: list[Input] | Iterator[Input]
    ids: list[str]
    texts: Texts | None = None

    @property
    def images(self) -> bool:
        """True if the items are images."""
        return self.texts is None

    def location(self, index: int) -> str:
        """Place of an item for messages: file, line and id of a text, file or page of an image."""
        return self.ids[index] if self.texts is None else self.texts.location(index)


def read_parts(sources: Sequence[str], options: TextFileOptions) -> list[InputPart]:
    """Collect the inputs of files. Texts are read at once; images and the pages of a PDF when they are taken.

    Images and PDFs are recognized by their endings. The id of an image is its path as given in `sources`, the id of the
    first page of a PDF is `path.pdf#1`. If several files have an id in common, as line numbers are, the ids of all
    texts become `path#id`. A file that is named again has the path `path (2)` in its ids.

    Raises:
        InputError, CapacityError: as `options.on_error` decides, a file cannot be found, or a file of texts cannot be
            read, is empty, or does not fit the memory.
    """
    parts: list[InputPart] = []
    for source, label in zip(sources, _labels(sources), strict=True):
        try:
            _add(parts, source, label, options)
        except EmbedpackError as cause:
            options.on_error(cause)
    return _distinct(parts)


def _add(parts: list[InputPart], source: str, label: str, options: TextFileOptions) -> None:
    """Append the inputs of a file."""
    suffix = Path(source).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        _add_image(parts, _existing(source), label)
    elif suffix == PDF_SUFFIX:
        parts.append(_pdf_part(_existing(source), label))
    else:
        texts = read_texts(source, options)
        parts.append(InputPart(label, [*texts.texts], texts.ids, texts))


def _labels(sources: Iterable[str]) -> list[str]:
    """Names of the files in ids: the path, and its count from the second time on."""
    seen: Counter[str] = Counter()
    labels = []
    for source in sources:
        seen[source] += 1
        labels.append(source if seen[source] == 1 else f"{source} ({seen[source]})")
        _check_utf8(source)
    return labels


def _check_utf8(source: str) -> None:
    try:
        source.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise InputError(f"{source!r}: the name is not UTF-8, so it cannot be an id; rename the file") from cause


def _distinct(parts: list[InputPart]) -> list[InputPart]:
    """Put the path before the ids of texts if two files have an id in common."""
    texts = [part for part in parts if part.texts is not None]
    if len({name for part in texts for name in part.ids}) == sum(len(part.ids) for part in texts):
        return parts
    logger.info("several files have the same ids; all ids of texts are written as FILE#ID")
    return [
        part if part.texts is None else replace(part, ids=[f"{part.source}#{name}" for name in part.ids])
        for part in parts
    ]


def _existing(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{source}: {failed('read', cause)}") from cause
    return path


def _add_image(parts: list[InputPart], path: Path, label: str) -> None:
    """Append an image to the part of the images before it, or start a new part."""
    if not parts or not parts[-1].images or not isinstance(parts[-1].items, list):
        parts.append(InputPart(str(path), [], []))
    last = parts[-1].items
    assert isinstance(last, list)
    last.append(path)
    parts[-1].ids.append(label)


def _pdf_part(path: Path, label: str) -> InputPart:
    ids: list[str] = []

    def pages() -> Iterator[Input]:
        for number, page in enumerate(pdf_pages(path), 1):
            ids.append(f"{label}#{number}")
            yield page

    return InputPart(label, pages(), ids)
