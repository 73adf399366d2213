"""Texts of files, with their ids and the places they were read from."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from embedpack.errors import EmbedpackError, InputError, ItemError
from embedpack.inputs.items import is_blank, shortened, text_problem
from embedpack.inputs.text_formats import Format, Record, format_of, read_records, unit_of

# Names of the field of the id, if none is named; the second is that of BEIR.
ID_COLUMNS = ("id", "_id")
SHOWN_KEYS = 10
JSON_TYPES = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "an array"}

logger = logging.getLogger("embedpack")


def raise_error(error: EmbedpackError) -> NoReturn:
    """Handle the error of an input by raising it."""
    raise error


@dataclass(frozen=True)
class TextFileOptions:
    """Options of reading files of texts.

    Attributes:
        format: format of all files; None: by the ending of each.
        column: JSON key or column of the text.
        id_column: JSON key or column of the id; None: "id" or "_id", and without one the number of the line.
        allow_blank: keep records whose text is blank; lines that are blank are never texts.
        on_error: is called with the error of a record that cannot be used; if it returns, the record is left out.
    """

    format: Format | None = None
    column: str = "text"
    id_column: str | None = None
    allow_blank: bool = False
    on_error: Callable[[EmbedpackError], None] = raise_error

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read: that of the text, then those of the id."""
        return (self.column, *(ID_COLUMNS if self.id_column is None else (self.id_column,)))


@dataclass(frozen=True)
class Texts:
    """Texts of the file `source` with their ids, and the numbers of their lines, items or rows (`unit`)."""

    source: str
    unit: str = "line"
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def location(self, index: int) -> str:
        """Place of a text for messages."""
        name = self.ids[index]
        place = f"{self.source}, {self.unit} {self.numbers[index]}"
        return place if name == str(self.numbers[index]) else f"{place} (id {shortened(name)})"

    def located(self, error: ItemError) -> InputError:
        """The error of a text with its place in the file."""
        return InputError(f"{self.location(error.number)}: the {error.kind} {error.problem}")


def read_texts(source: str, options: TextFileOptions | None = None) -> Texts:
    """Read the texts of a file, "-" for standard input.

    Raises:
        InputError: the file cannot be read or has no text; an id occurs twice; or, as `options.on_error` decides, a
            record has no text or one that cannot be embedded.
        CapacityError: the file does not fit the memory.
    """
    options = TextFileOptions() if options is None else options
    format = options.format or format_of(source)
    result = Texts(source, unit_of(format))
    blank = records = 0
    first: dict[str, int] = {}
    for records, record in enumerate(read_records(source, format, options.columns), 1):  # noqa: B007 - counted
        if format == "lines" and is_blank(_fields(record)[options.column]):
            blank += 1
            continue
        try:
            name, text = _id_and_text(record, options)
            if name in first:
                raise InputError(f"the id {shortened(name)} occurs a second time, first in {result.unit} {first[name]}")
        except InputError as cause:
            options.on_error(InputError(f"{source}, {result.unit} {record.number}: {cause}"))
            continue
        first[name] = record.number
        result.ids.append(name)
        result.texts.append(text)
        result.numbers.append(record.number)
    if blank:
        logger.info("%s: skipped %d blank %s", source, blank, "line" if blank == 1 else "lines")
    if not result.texts:
        raise InputError(f"{source}: {'no text in it' if records else 'the file is empty'}; leave it out")
    return result


def _fields(record: Record) -> Any:
    if isinstance(record.fields, InputError):
        raise record.fields
    return record.fields


def _id_and_text(record: Record, options: TextFileOptions) -> tuple[str, str]:
    """Id and text of a record; the InputError does not name the file."""
    fields = _fields(record)
    name = _id(fields, record.number, options)
    place = "" if name == str(record.number) else f"id {shortened(name)}: "
    if options.column not in fields:
        keys = [shortened(str(key)) for key in list(fields)[:SHOWN_KEYS]]
        raise InputError(f"{place}no text under {options.column!r} (keys: {', '.join(keys) or 'none'}); see --column")
    text = fields[options.column]
    if not isinstance(text, str):
        raise InputError(f"{place}{options.column!r} is {_type(text)}, not a text; leave the record out")
    if is_blank(text):
        if not options.allow_blank:
            raise InputError(f"{place}the text is empty; leave it out, or see --on-empty")
    elif problem := text_problem(text):
        raise InputError(f"{place}the text {problem}")
    return name, text


def _id(fields: dict[str, Any], number: int, options: TextFileOptions) -> str:
    names = [name for name in options.columns[1:] if fields.get(name) not in (None, "")]
    if not names:
        if options.id_column is not None:
            raise InputError(f"no id under {options.id_column!r}; see --id-column")
        return str(number)
    value = fields[names[0]]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{names[0]!r} is {_type(value)}; an id is a text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{names[0]!r} is {value}; an id is a text or a finite number")
    return str(value)


def _type(value: object) -> str:
    return JSON_TYPES.get(type(value), "an object")
