"""Reader of protocol buffers: every number of 64 bits, and nothing read beyond a limit or a message."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.storage.protobuf import MAX_VARINT_BYTES, as_message, as_text, read_fields, read_packed


def number(value: int) -> bytes:
    """A varint by its definition: seven bits per byte, lowest first."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


class CountedBytes:
    """Bytes that count how often one of them is read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = 0

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, place: int) -> int:
        self.reads += 1
        return self.content[place]


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_packed_list_round_trip(values: list[int]) -> None:
    assert read_packed(memoryview(b"".join(map(number, values)))) == values


@given(st.integers(1, 1000), st.integers(0, 2**64 - 1), st.text())
def test_fields_round_trip(field: int, value: int, text: str) -> None:
    content = text.encode()
    fixed = number(field << 3 | 1) + bytes(8) + number(field << 3 | 5) + bytes(4)
    message = number(field << 3) + number(value) + fixed + number(field << 3 | 2) + number(len(content)) + content
    (first, whole), (second, part) = read_fields(memoryview(message))
    assert (first, whole, second) == (field, value, field)
    assert as_text(part) == text
    with pytest.raises(ValueError, match="a number where a message should be"):
        as_message(value)


@given(st.binary(max_size=40))
def test_any_bytes_are_fields_or_an_error(content: bytes) -> None:
    try:
        assert sum(len(value) for _, value in read_fields(memoryview(content)) if not isinstance(value, int)) <= 40
    except (ValueError, IndexError):
        return


def test_endless_number_is_not_read_to_its_end() -> None:
    content = CountedBytes(b"\xff" * 1_000_000 + b"\x01")
    with pytest.raises(ValueError, match=r"^a number of more than 10 bytes$"):
        read_packed(cast(memoryview, content))
    assert content.reads <= MAX_VARINT_BYTES + 1
