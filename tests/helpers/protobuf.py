"""Parts of ONNX files as bytes, also such that onnx does not write."""

from __future__ import annotations


def number(value: int) -> bytes:
    """An integer as a protocol buffer has it."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(index: int, content: bytes | int) -> bytes:
    """A field of a message: an integer, or bytes with their length."""
    if isinstance(content, int):
        return number(index << 3) + number(content)
    return number(index << 3 | 2) + number(len(content)) + content


def node(kind: str, *inputs: str, attributes: bytes = b"") -> bytes:
    """A node of a graph, with further fields."""
    return field(1, b"".join(field(1, name.encode()) for name in inputs) + field(4, kind.encode()) + attributes)


def model(*parts: bytes) -> bytes:
    """A model of a graph with these fields."""
    return field(1, 10) + field(7, b"".join(parts)) + field(8, field(2, 23))
