"""Lines, JSON records and table rows of UTF-8 files, plain or gzip, with their locations for error messages."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedpack.errors import InputError, failed


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file `name` or `name`.gz of a folder; None if neither exists.

    Raises:
        InputError: both exist.
    """
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(paths) > 1:
        raise InputError(f"{paths[0]}: next to it lies {paths[1].name}; remove one of them")
    return paths[0] if paths else None


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (location, line) for every non-blank line.

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
        raise InputError(f"{path}: {failed('read', cause)}") from cause
    for number, line in enumerate(content.split(b"\n"), 1):
        location = f"{path}, line {number}"
        try:
            text = line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as cause:
            raise InputError(f"{location}: not UTF-8 at byte {cause.start}; convert the file to UTF-8") from cause
        if text.strip():
            yield location, text


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, object) for every line of a JSON lines file.

    Raises:
        InputError: as `read_lines`, or a line is not a JSON object.
    """
    for location, line in read_lines(path):
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise InputError(f"{location}: not valid JSON: {cause}") from cause
        if not isinstance(record, dict):
            raise InputError(f"{location}: expected an object with an id and a text, found {line[:40]!r}")
        yield location, record


def read_columns(path: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield (location, fields) for every line of a tab-separated file.

    Raises:
        InputError: as `read_lines`, or a line has not `count` fields.
    """
    for location, line in read_lines(path):
        fields = line.split("\t")
        if len(fields) != count:
            raise InputError(f"{location}: expected {count} fields between tabs, found {len(fields)}")
        yield location, fields
