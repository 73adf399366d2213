"""Digits to bytes and back: as many digits as fit a byte are written as one number, the first digit most significant.

| precision | digits | in a byte |
|-----------|--------|-----------|
| 4bit      | 0..15  | 2         |
| 2bit      | 0..3   | 4         |
| ternary   | 0..2   | 5         |
| binary    | 0, 1   | 8         |

The first dimensions of a vector are the first bytes of its code. Only ternary digits may end within a byte, as few
dimensions are a multiple of 5; what is left of it is filled with the middle digit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.vectors.codebook import LEVEL_COUNTS, Digits, Float32, LowBit

DIGITS_PER_BYTE: Mapping[LowBit, int] = {"4bit": 2, "2bit": 4, "ternary": 5, "binary": 8}
FILLER = 1

Bytes = npt.NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)


def fills_bytes(precision: LowBit, dimensions: int) -> bool:
    """Whether there are codes of so many dimensions."""
    return precision == "ternary" or dimensions % DIGITS_PER_BYTE[precision] == 0


def packed_width(precision: LowBit, dimensions: int) -> int:
    """Bytes of a code.

    Raises:
        InputError: the dimensions do not fill whole bytes, where they must.
    """
    per_byte = DIGITS_PER_BYTE[precision]
    if not fills_bytes(precision, dimensions):
        raise InputError(f"{precision} codes need a multiple of {per_byte} dimensions, not {dimensions}")
    return -(-dimensions // per_byte)


def pack(digits: Digits, precision: LowBit) -> Bytes:
    """Digits, uint8 [n, d], as bytes, uint8 [n, width].

    Raises:
        InputError: as `packed_width`.
    """
    per_byte, base = DIGITS_PER_BYTE[precision], np.uint8(LEVEL_COUNTS[precision])
    missing = packed_width(precision, digits.shape[1]) * per_byte - digits.shape[1]
    if missing:
        digits = np.pad(digits, ((0, 0), (0, missing)), constant_values=FILLER)
    packed = digits[:, ::per_byte].copy()
    for place in range(1, per_byte):
        packed *= base
        packed += digits[:, place::per_byte]
    return packed


def unpack(packed: Bytes, precision: LowBit, dimensions: int, values: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """What the digits stand for, [n, dimensions]: `values` has an entry for each digit.

    Raises:
        InputError: a byte is no code.
    """
    codes = LEVEL_COUNTS[precision] ** DIGITS_PER_BYTE[precision]
    if packed.max(initial=0) >= codes:
        row = int((packed >= codes).any(axis=1).argmax())
        raise InputError(
            f"{precision} codes have bytes below {codes}, row {row} has {packed[row].max()}; "
            "are these codes of another precision?"
        )
    found = values[_digits_of_bytes(precision)].take(packed, axis=0)
    return found.reshape(len(packed), packed.shape[1] * DIGITS_PER_BYTE[precision])[:, :dimensions]


def cut(packed: Bytes, precision: LowBit, dimensions: int) -> Bytes:
    """The codes of the first dimensions.

    Raises:
        InputError: as `packed_width`.
    """
    shorter = np.ascontiguousarray(packed[:, : packed_width(precision, dimensions)])
    left = dimensions % DIGITS_PER_BYTE[precision]
    if left:
        digits = unpack(shorter[:, -1:], precision, left, np.arange(LEVEL_COUNTS[precision], dtype=np.uint8))
        shorter = np.concatenate([shorter[:, :-1], pack(digits, precision)], axis=1)
    return shorter


def signs(packed: Bytes, dimensions: int) -> Float32:
    """Binary codes as +1 and -1, float32 [n, dimensions]."""
    return unpack(packed, "binary", dimensions, np.array([-1, 1], np.float32))


@functools.cache
def _digits_of_bytes(precision: LowBit) -> npt.NDArray[Any]:
    """The digits in every byte, uint8 [256, digits per byte]; of bytes that are no code, some."""
    base, per_byte = LEVEL_COUNTS[precision], DIGITS_PER_BYTE[precision]
    places = base ** np.arange(per_byte - 1, -1, -1)
    return (np.arange(256)[:, None] // places % base).astype(np.uint8)
