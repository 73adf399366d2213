"""Digits to bytes and back: the digits of a byte form one number, the first digit most significant.

| precision | digits | per byte  |
|-----------|--------|-----------|
| 4bit      | 0..15  | 2         |
| 2bit      | 0..3   | 4         |
| ternary   | 0..2   | 5         |
| binary    | 0, 1   | 8         |

The first dimensions of a vector are the first bytes of its code. Only ternary digits may end within a byte, as few
dimensions are a multiple of 5; the rest of the byte is filled with the middle digit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LEVEL_COUNTS, Digits, LowBit

DIGITS_PER_BYTE: Mapping[LowBit, int] = {"4bit": 2, "2bit": 4, "ternary": 5, "binary": 8}
FILLER = 1

Bytes = npt.NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)


def fills_bytes(precision: LowBit, dimensions: int) -> bool:
    """True if codes of a precision can have that many dimensions."""
    return precision == "ternary" or dimensions % DIGITS_PER_BYTE[precision] == 0


def packed_width(precision: LowBit, dimensions: int) -> int:
    """Number of bytes of a code; InputError if the dimensions do not fill them, as ternary codes need not."""
    per_byte = DIGITS_PER_BYTE[precision]
    if not fills_bytes(precision, dimensions):
        raise InputError(f"{precision} codes need a multiple of {per_byte} dimensions, not {dimensions}")
    return -(-dimensions // per_byte)


def pack(digits: Digits, precision: LowBit) -> Bytes:
    """Pack digits, uint8 [n, d], into bytes, uint8 [n, width]; InputError as `packed_width`."""
    per_byte, base = DIGITS_PER_BYTE[precision], np.uint8(LEVEL_COUNTS[precision])
    padding = packed_width(precision, digits.shape[1]) * per_byte - digits.shape[1]
    if padding:
        digits = np.pad(digits, ((0, 0), (0, padding)), constant_values=FILLER)
    packed = digits[:, ::per_byte].copy()
    for place in range(1, per_byte):
        packed *= base
        packed += digits[:, place::per_byte]
    return packed


def unpack(packed: Bytes, precision: LowBit, dimensions: int, values: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Unpack bytes and replace each digit by its entry in `values`; InputError if a byte is not a valid code."""
    codes = LEVEL_COUNTS[precision] ** DIGITS_PER_BYTE[precision]
    if packed.max(initial=0) >= codes:
        row = int((packed >= codes).any(axis=1).argmax())
        raise InputError(
            f"{precision} codes have bytes below {codes}, row {row} has {packed[row].max()}; "
            "are these codes of another precision?"
        )
    unpacked = values[_digits_of_bytes(precision)].take(packed, axis=0)
    return unpacked.reshape(len(packed), packed.shape[1] * DIGITS_PER_BYTE[precision])[:, :dimensions]


def cut(packed: Bytes, precision: LowBit, dimensions: int) -> Bytes:
    """Truncate codes to their first dimensions; InputError as `packed_width`."""
    shorter = np.ascontiguousarray(packed[:, : packed_width(precision, dimensions)])
    rest = dimensions % DIGITS_PER_BYTE[precision]
    if rest:
        digits = unpack(shorter[:, -1:], precision, rest, np.arange(LEVEL_COUNTS[precision], dtype=np.uint8))
        shorter = np.concatenate([shorter[:, :-1], pack(digits, precision)], axis=1)
    return shorter


def signs(packed: Bytes, dimensions: int) -> Float32:
    """Binary codes as +1 and -1, float32 [n, dimensions]."""
    return unpack(packed, "binary", dimensions, np.array([-1, 1], np.float32))


@functools.cache
def _digits_of_bytes(precision: LowBit) -> npt.NDArray[Any]:
    """Digits of every byte, uint8 [256, digits per byte]; undefined for bytes that are not valid codes."""
    base, per_byte = LEVEL_COUNTS[precision], DIGITS_PER_BYTE[precision]
    places = base ** np.arange(per_byte - 1, -1, -1)
    return (np.arange(256)[:, None] // places % base).astype(np.uint8)
