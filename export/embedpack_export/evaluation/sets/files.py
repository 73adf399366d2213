"""Lines of the files of a set, plain or gzip, always UTF-8."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedpack.errors import InputError


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, or that name with .gz; None: there is neither.

    Raises:
        InputError: there are both.
    """
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise InputError(f"{found[0]}: beside it lies {found[1].name}; remove one of them")
    return found[0] if found else None


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, without its end, behind the name of its place for error messages.

    Raises:
        InputError: the file cannot be read, is damaged, or not UTF-8.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise InputError(f"{path}: damaged: {cause}; copy it again") from cause
    except OSError as cause:
        raise InputError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    for number, line in enumerate(content.split(b"\n"), 1):
        place = f"{path}, line {number}"
        try:
            text = line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as cause:
            raise InputError(f"{place}: not UTF-8 at byte {cause.start}; convert the file to UTF-8") from cause
        if text.strip():
            yield place, text


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of every line of a JSON lines file, behind the name of its place.

    Raises:
        InputError: as `read_lines`, or a line holds no JSON object.
    """
    for place, line in read_lines(path):
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise InputError(f"{place}: not valid JSON: {cause}") from cause
        if not isinstance(record, dict):
            raise InputError(f"{place}: expected an object with an id and a text, found {line[:40]!r}")
        yield place, record


def read_columns(path: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """The fields of every line of a tab-separated file, behind the name of its place.

    Raises:
        InputError: as `read_lines`, or a line has another number of fields.
    """
    for place, line in read_lines(path):
        fields = line.split("\t")
        if len(fields) != count:
            raise InputError(f"{place}: expected {count} fields between tabs, found {len(fields)}")
        yield place, fields
