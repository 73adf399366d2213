"""Fingerprint of the inputs of a run, to see whether a run goes on with the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import InputError, failed
from embedpack.inputs.files import IMAGE_SUFFIXES, PDF_SUFFIX, InputPart


def fingerprint(sources: Sequence[str], parts: Sequence[InputPart]) -> str:
    """Hexadecimal sha256 of the names of `sources`, the ids and texts of their `parts`, and the images and PDFs.

    InputError: an image or a PDF cannot be read.
    """
    digest = hashlib.sha256()
    for source in sources:
        _add(digest, source)
        if Path(source).suffix.lower() in {*IMAGE_SUFFIXES, PDF_SUFFIX}:
            _add(digest, _file_digest(Path(source)))
    for part in parts:
        if part.texts is not None:
            for name, text in zip(part.ids, part.texts.texts, strict=True):
                _add(digest, name)
                _add(digest, text)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, text: str) -> None:
    # The length first: two strings in a row are no other two.
    content = text.encode("utf-8", "surrogatepass")
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as cause:
        raise InputError(f"{path}: {failed('read', cause)}") from cause
