"""Texts of files: plain lines, JSON lines or CSV; also from standard input."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from embedpack.errors import InputError, failed, unknown

# The limit of the csv module is too low for long documents.
MAX_FIELD_CHARACTERS = 2**31 - 1
SUFFIXES = {".txt": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}

# Line numbers and the fields of their records.
Records: TypeAlias = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Texts:
    """Texts and their ids: those of the file, or line numbers counted from 1."""

    ids: list[str]
    texts: list[str]


def read_texts(source: str, *, format: str | None = None, column: str = "text", id_column: str = "id") -> Texts:
    """Read the texts of a file, "-" for standard input.

    `format` is "lines", "jsonl" or "csv"; default: by the ending of the file, "lines" for an unknown one. `column` and
    `id_column` are JSON keys or CSV columns; records without an id are numbered by line. InputError if the file cannot
    be read, is not UTF-8, or a record has no text.
    """
    content = _read(source)
    kind = format or SUFFIXES.get(Path(source).suffix.lower(), "lines")
    if kind not in RECORDS:
        raise InputError(unknown("format", kind, RECORDS))
    result = Texts([], [])
    for number, record in RECORDS[kind](source, content, column):
        text = record.get(column)
        if not isinstance(text, str):
            keys = ", ".join(map(str, record)) or "none"
            raise InputError(f"{source}, line {number}: no text under {column!r} (keys: {keys}); see --column")
        if not text or text.isspace():
            raise InputError(f"{source}, line {number}: the text is empty; remove the line, or give it a placeholder")
        result.ids.append(str(record.get(id_column, number)))
        result.texts.append(text)
    return result


def _read(source: str) -> str:
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise InputError(f"{source}, line {line}: not UTF-8; convert it, e.g. with iconv -t UTF-8") from cause
    except OSError as cause:
        raise InputError(f"{source}: {failed('read', cause)}") from cause


def _lines(source: str, content: str, column: str) -> Records:
    # Not splitlines(): a text may contain other line separators.
    for number, line in enumerate(content.removesuffix("\n").split("\n") if content else [], 1):
        yield number, {column: line.removesuffix("\r")}


def _json_records(source: str, content: str, column: str) -> Records:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError as cause:
                raise InputError(f"{source}, line {number}: not a JSON object: {cause}") from cause


def _csv_records(source: str, content: str, column: str) -> Records:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        for record in reader:
            yield reader.line_num, record
    except csv.Error as cause:
        raise InputError(f"{source}, line {reader.line_num}: not valid CSV: {cause}") from cause


RECORDS: Mapping[str, Callable[[str, str, str], Records]] = {
    "lines": _lines,
    "jsonl": _json_records,
    "csv": _csv_records,
}
