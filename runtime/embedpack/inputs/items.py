"""Inputs of a call as numbered, checked texts and images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from embedpack.errors import InputError, ItemError
from embedpack.inputs.images import ImageSource, is_image
from embedpack.inputs.limits import MAX_CHARACTERS

Input: TypeAlias = "str | ImageSource"
Inputs: TypeAlias = "Input | Sequence[Input] | Iterator[Input]"

# Characters of a name from a file in a message.
SHOWN_CHARACTERS = 60
NO_INPUTS = "nothing to embed: the list is empty"


@dataclass(frozen=True, slots=True)
class Text:
    """A text that can be tokenized; `number` is its position among the inputs of the call."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image that has not been read; `number` is its position among the inputs of the call."""

    number: int
    source: ImageSource


Item: TypeAlias = Text | Image


def as_list_or_iterator(inputs: Inputs) -> list[Input] | Iterator[Input]:
    """List of the inputs of a call, or their iterator; InputError for another type, or an empty sequence."""
    if isinstance(inputs, str) or is_image(inputs):
        return [inputs]
    # An open file iterates over its lines, but was meant as an image.
    if isinstance(inputs, Iterator) and not isinstance(inputs, io.IOBase):
        return inputs
    if not isinstance(inputs, Sequence) or isinstance(inputs, bytes | bytearray):
        raise InputError(
            "pass a text, an image (PIL.Image.Image, pathlib.Path, bytes, uint8 array [height, width, 3]), or a "
            f"sequence or an iterator of them, not {type(inputs).__name__}"
        )
    if not inputs:
        raise InputError(NO_INPUTS)
    return list(inputs)


def as_iterable(inputs: Input | Iterable[Input]) -> Iterable[Input]:
    """Inputs of a call that takes any iterable; one text or image becomes a list. InputError for another type."""
    if isinstance(inputs, str) or is_image(inputs):
        return [inputs]
    if not isinstance(inputs, Iterable) or isinstance(inputs, (Mapping, bytes, bytearray, io.IOBase)):
        raise InputError(f"pass an iterable of texts and images, not {type(inputs).__name__}")
    return inputs


def number_items(inputs: Iterable[Input], *, images: bool, blank: bool = False) -> Iterator[Item]:
    """Number inputs from 0 and check them one by one, without opening files.

    InputError for an input of another type, an image unless `images` are allowed, a blank text unless `blank` ones are,
    or a text that cannot be tokenized.
    """
    for number, value in enumerate(inputs):
        if not is_image(value):
            yield Text(
                number, value if blank and isinstance(value, str) and is_blank(value) else check_text(value, number)
            )
        elif images:
            yield Image(number, value)
        else:
            raise InputError(f"item {number} is an image; this pack reads texts only")


def is_blank(text: str) -> bool:
    """True for a text without any character but white space."""
    return not text or text.isspace()


def shortened(name: str) -> str:
    """Beginning of a name from a file, for messages."""
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}..."


def check_text(text: object, number: int) -> str:
    """Refuse a text that cannot be tokenized; `number` is its position for the error message.

    InputError: it is not a str; ItemError: it is blank, or has a `text_problem`.
    """
    if not isinstance(text, str):
        raise InputError(f"item {number} is of type {type(text).__name__}; a text must be a str")
    if is_blank(text):
        raise ItemError("text", number, "is empty; leave it out, or pass on_empty='skip'")
    problem = text_problem(text)
    if problem is not None:
        raise ItemError("text", number, problem)
    return text


def text_problem(text: str) -> str | None:
    """Reason why a text cannot be tokenized, and the remedy; None: it can.

    It has more than `MAX_CHARACTERS`, a NUL or a lone surrogate.
    """
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text)} characters, at most {MAX_CHARACTERS} are taken; split it"
    if "\0" in text:
        return f"has a NUL character at position {text.index(chr(0))}; is it binary data?"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        return (
            f"has a lone surrogate (U+{ord(text[cause.start]):04X}) at position {cause.start}; "
            "it was decoded wrongly: try text.encode('utf-8', 'replace').decode()"
        )
    return None
