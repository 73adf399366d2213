"""Reader of protocol buffers: fields of a message by their numbers, without a schema.

A message is untrusted: numbers have a length limit, and a field must end within its message. Format:
https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]

# Length limit of a number: 64 bits, seven a byte.
MAX_VARINT_BYTES = 10


def read_fields(content: memoryview) -> Iterator[Field]:
    """Field numbers and values of a message: integers, or the bytes of strings, messages and packed lists.

    Fields of 4 and 8 bytes are skipped. ValueError or IndexError if the content is not a message.
    """
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(content, place)
            yield key >> 3, value
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            size, place = _varint(content, place)
            if place + size > len(content):
                raise ValueError("a field ends after its message")
            yield key >> 3, content[place : place + size]
            place += size
        else:
            raise ValueError(f"field of kind {kind}")


def read_packed(content: memoryview) -> list[int]:
    """Integers of a packed list; errors as of `read_fields`."""
    place, values = 0, []
    while place < len(content):
        value, place = _varint(content, place)
        values.append(value)
    return values


def as_message(value: int | memoryview) -> memoryview:
    """Bytes of a field that is a message; ValueError if it is a number."""
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def as_text(value: int | memoryview) -> str:
    """Text of a field that is a string; ValueError if it is a number, or not UTF-8."""
    return bytes(as_message(value)).decode()


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """A varint (seven bits per byte, lowest first), and the position after it."""
    byte = content[place]
    if byte < 128:
        return byte, place + 1
    value = shift = 0
    while byte >= 128:
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if shift >= 7 * MAX_VARINT_BYTES:
            raise ValueError(f"a number of more than {MAX_VARINT_BYTES} bytes")
        byte = content[place]
    return value | byte << shift, place + 1
