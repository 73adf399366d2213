"""Records of text files by format: plain lines, JSON lines, a JSON array, tables (CSV, TSV), Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from embedpack.errors import InputError, failed, unknown
from embedpack.host.memory import check_memory
from embedpack.inputs.file_content import COPIES, GZIP_SUFFIX, STANDARD_INPUT, read_text_content

Format = Literal["lines", "jsonl", "json", "csv", "tsv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
# Other suffixes are refused: the lines of a file of another kind are no texts.
SUFFIXES: Mapping[str, Format] = {
    "": "lines", ".txt": "lines", ".text": "lines", ".md": "lines", ".markdown": "lines", ".rst": "lines",
    ".log": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
# Name of the parts of a file that have numbers, for messages.
UNITS: Mapping[Format, str] = {"json": "item", "parquet": "row"}

# The limit of the csv module is too low for long documents.
MAX_FIELD_CHARACTERS = 2**31 - 1
SHOWN_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class Record:
    """Fields of a line, an item or a row, and its number in the file, counted from 1; or the reason it has none."""

    number: int
    fields: Mapping[str, Any] | InputError


Records: TypeAlias = Iterator[Record]


def unit_of(format: Format) -> str:
    """Name of a part of a file of this format: "line", "item" or "row"."""
    return UNITS.get(format, "line")


def format_of(source: str) -> Format:
    """Format of a file by the suffix of its name, before .gz; standard input has lines.

    Raises:
        InputError: the suffix is unknown.
    """
    if source == STANDARD_INPUT:
        return "lines"
    name = Path(source.lower()).name
    suffix = Path(name.removesuffix(GZIP_SUFFIX)).suffix
    if suffix not in SUFFIXES:
        known = [each for each in SUFFIXES if each]
        raise InputError(f"{source}: {unknown('ending', suffix, known)}; for a text file of another name pass --format")
    return SUFFIXES[suffix]


def read_records(source: str, format: Format, columns: tuple[str, ...]) -> Records:
    """Read the records of a file; a line of a plain text file becomes the record {columns[0]: line}.

    Raises:
        InputError: the file cannot be read, or is not of this format.
        CapacityError: the file does not fit the memory.
    """
    if format == "parquet":
        return _parquet(source, columns)
    return PARSERS[format](source, read_text_content(source), columns[0])


def _lines(source: str, content: str, column: str) -> Records:
    # Not splitlines(): a text may contain other line separators.
    for number, line in enumerate(content.removesuffix("\n").split("\n") if content else [], 1):
        yield Record(number, {column: line.removesuffix("\r")})


def _json_lines(source: str, content: str, column: str) -> Records:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                yield Record(number, msgspec.json.decode(line, type=dict[str, Any]))
            except (msgspec.DecodeError, RecursionError) as cause:
                yield Record(number, InputError(f"not a JSON object: {cause}"))


def _json_array(source: str, content: str, column: str) -> Records:
    if not content.strip():
        return
    try:
        items = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as cause:
        raise InputError(f"{source}: not valid JSON: {cause}; for JSON lines pass --format jsonl") from cause
    if not isinstance(items, list):
        raise InputError(f"{source}: expected a JSON array of texts or of objects with a text each")
    for number, item in enumerate(items, 1):
        if isinstance(item, str):
            yield Record(number, {column: item})
        elif isinstance(item, dict):
            yield Record(number, item)
        else:
            yield Record(number, InputError("neither a text nor a JSON object"))


def _csv(source: str, content: str, column: str) -> Records:
    return _table(source, content, column, ",")


def _tsv(source: str, content: str, column: str) -> Records:
    return _table(source, content, column, "\t")


def _table(source: str, content: str, column: str, delimiter: str) -> Records:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise InputError(f"{source}, line 1: two columns have the same name; rename one")
        if names:
            _check_column(source, column, names)
        for fields in reader:
            yield _row(reader.line_num, fields, len(names))
    except csv.Error as cause:
        raise InputError(f"{source}, line {reader.line_num}: not a valid table: {cause}") from cause


def _check_column(source: str, column: str, names: Sequence[str]) -> None:
    if column not in names:
        shown = ", ".join(names[:SHOWN_COLUMNS])
        raise InputError(f"{source}: no column {column!r} (columns: {shown}); see --column")


def _row(number: int, fields: dict[Any, Any], columns: int) -> Record:
    # The csv module puts what is left over under None, and None where a field is missing.
    if None in fields or None in fields.values():
        return Record(number, InputError(f"the number of fields differs from the {columns} of the header"))
    return Record(number, fields)


def _parquet(source: str, columns: tuple[str, ...]) -> Records:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as cause:
        raise InputError(
            f"{source}: reading Parquet needs pyarrow, which is not installed. Run: pip install pyarrow"
        ) from cause
    try:
        with parquet.ParquetFile(source) as file:
            metadata = file.metadata
            size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            check_memory(COPIES * size, f"{source}: its content", "split the file")
            names = file.schema_arrow.names
            _check_column(source, columns[0], names)
            yield from _rows(file.iter_batches(columns=[name for name in columns if name in names]))
    except (pyarrow.ArrowException, OSError, ValueError) as cause:
        raise InputError(f"{source}: {failed('read', cause)}") from cause


def _rows(batches: Iterable[Any]) -> Records:
    number = 0
    for batch in batches:
        for fields in batch.to_pylist():
            number += 1
            yield Record(number, fields)


PARSERS: Mapping[Format, Callable[[str, str, str], Records]] = {
    "lines": _lines,
    "jsonl": _json_lines,
    "json": _json_array,
    "csv": _csv,
    "tsv": _tsv,
}
