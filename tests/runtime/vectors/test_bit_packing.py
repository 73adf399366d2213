"""Digits in bytes: what was packed is unpacked, and a prefix of digits is a prefix of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.vectors.bit_packing import cut, fills_bytes, pack, packed_width, signs, unpack
from embedpack.vectors.codebook import LOW_BIT, Digits, LowBit
from tests.helpers.codebooks import PACKED, digits_of

PRECISIONS = st.sampled_from(LOW_BIT)
ROWS, DIMENSIONS = st.integers(0, 5), st.integers(1, 48)


def random_digits(precision: LowBit, rows: int, dimensions: int) -> Digits:
    random = np.random.default_rng(rows * 100 + dimensions)
    return random.integers(0, PACKED[precision][1], (rows, dimensions), dtype=np.uint8)


@given(precision=PRECISIONS, rows=ROWS, dimensions=DIMENSIONS)
def test_unpacked_is_what_was_packed(precision: LowBit, rows: int, dimensions: int) -> None:
    if not fills_bytes(precision, dimensions):
        return
    digits = random_digits(precision, rows, dimensions)
    packed = pack(digits, precision)
    assert packed.dtype == np.uint8
    assert packed.shape == (rows, packed_width(precision, dimensions))
    assert np.array_equal(digits_of(packed, precision, dimensions), digits)
    values = np.random.default_rng(0).standard_normal(PACKED[precision][1]).astype(np.float32)
    found = unpack(packed, precision, dimensions, values)
    assert found.dtype == np.float32
    assert np.array_equal(found, values[digits])


@given(precision=PRECISIONS, rows=ROWS, dimensions=DIMENSIONS, shorter=DIMENSIONS)
def test_cut_is_what_the_first_digits_are_packed_to(
    precision: LowBit, rows: int, dimensions: int, shorter: int
) -> None:
    shorter = min(shorter, dimensions)
    if not (fills_bytes(precision, dimensions) and fills_bytes(precision, shorter)):
        return
    digits = random_digits(precision, rows, dimensions)
    assert np.array_equal(cut(pack(digits, precision), precision, shorter), pack(digits[:, :shorter], precision))


def test_bits_lie_as_numpy_packs_them() -> None:
    digits = random_digits("binary", 5, 48)
    packed = pack(digits, "binary")
    assert np.array_equal(packed, np.packbits(digits, axis=1))
    assert np.array_equal(signs(packed, 48), digits.astype(np.float32) * 2 - 1)


@pytest.mark.parametrize(
    ("precision", "digits", "byte"),
    [
        ("4bit", [1, 15], 0x1F),
        ("2bit", [0, 1, 2, 3], 0b00011011),
        ("ternary", [2, 2, 2, 2, 2], 242),
        ("ternary", [2, 0], 2 * 81 + 0 * 27 + 9 + 3 + 1),
        ("binary", [1, 0, 0, 0, 0, 0, 0, 1], 0b10000001),
    ],
)
def test_first_digit_is_the_most_significant(precision: LowBit, digits: list[int], byte: int) -> None:
    assert pack(np.array([digits], np.uint8), precision).tolist() == [[byte]]
