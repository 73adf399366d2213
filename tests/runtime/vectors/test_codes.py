"""The definition of every precision: bounds of its error, and codes that are nested bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedpack import InputError
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LOW_BIT, LowBit
from embedpack.vectors.codes import (
    DTYPES,
    PRECISIONS,
    Precision,
    check_precision,
    check_vectors,
    code_width,
    decode,
    decode_in_codebook_space,
    quantize,
    truncate,
    unit,
)
from tests.helpers.codebooks import BLOCKS, DIMENSIONS, book, by_definition, codebook_of, coder, whole_rotation

VECTORS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(DIMENSIONS)),
    elements=st.floats(-1, 1, width=32, allow_subnormal=False),
)
# What a codebook may turn, or nothing.
ALL_BLOCKS = st.sampled_from([(), BLOCKS])
UNIT_VECTORS = VECTORS.filter(lambda vectors: bool((np.linalg.norm(vectors, axis=1) > 0.01).all())).map(unit)
SCALES = st.floats(0.001, 0.02)
SHORTER = st.sampled_from([8, 16, 32])
ALL_PRECISIONS = st.sampled_from(PRECISIONS)
LOW_BITS = st.sampled_from(LOW_BIT)


KNOWN = "float32, float16, int8, 4bit, 2bit, ternary, binary"


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def cosines(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    first, second = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS)
def test_codes_have_the_type_and_width_of_the_table(vectors: Float32, precision: Precision) -> None:
    codes = quantize(vectors, precision, coder(precision, DIMENSIONS))
    assert codes.dtype == DTYPES[precision]
    assert codes.shape == (len(vectors), code_width(precision, DIMENSIONS))


def test_width_of_a_code() -> None:
    widths = {precision: code_width(precision, 384) for precision in PRECISIONS}
    assert widths == {
        "float32": 384, "float16": 384, "int8": 384, "4bit": 192, "2bit": 96, "ternary": 77, "binary": 48
    }  # fmt: skip


@given(vectors=UNIT_VECTORS, scale=SCALES)
def test_int8_is_off_by_half_a_step_at_most_or_clipped(vectors: Float32, scale: float) -> None:
    codes = quantize(vectors, "int8", scale)
    assert codes.min() >= -127
    error = np.abs(codes * scale - vectors.clip(-127 * scale, 127 * scale))
    assert error.max() <= scale * (0.5 + 1e-4)


@given(vectors=UNIT_VECTORS, scale=SCALES)
def test_int8_codes_of_decoded_values_are_the_same_codes(vectors: Float32, scale: float) -> None:
    codes = quantize(vectors, "int8", scale)
    assert np.array_equal(quantize(codes.astype(np.float32) * np.float32(scale), "int8", scale), codes)


def test_int8_rounds_halves_to_even_as_the_graphs_do() -> None:
    halves = np.array([[0.5, 1.5, 2.5, -0.5, -1.5]], np.float32) * np.float32(0.0078125)
    assert quantize(halves, "int8", 0.0078125).tolist() == [[0, 2, 2, 0, -2]]


@given(vectors=UNIT_VECTORS)
def test_binary_says_which_side_of_the_center_first_dimension_in_the_highest_bit(vectors: Float32) -> None:
    codebook = codebook_of(blocks=())
    codes = quantize(vectors, "binary", codebook)
    bits = (codes[:, :, None] >> np.arange(7, -1, -1)) & 1
    assert np.array_equal(bits.reshape(len(vectors), -1), vectors - codebook.center > 0)


@given(vectors=UNIT_VECTORS, precision=LOW_BITS, blocks=ALL_BLOCKS, dimensions=SHORTER)
def test_low_bits_decode_to_the_definition(
    vectors: Float32, precision: LowBit, blocks: tuple[int, ...], dimensions: int
) -> None:
    codebook = codebook_of(blocks=blocks)
    codes = truncate(quantize(vectors, precision, codebook), precision, dimensions)
    expected = by_definition(codes, precision, dimensions, codebook)
    assert np.abs(decode(codes, precision, dimensions, codebook) - expected).max() <= 1e-6
    turned = expected @ whole_rotation(codebook)[:dimensions, :dimensions].T
    assert np.abs(decode_in_codebook_space(codes, precision, dimensions, codebook) - turned).max() <= 1e-6


@given(vectors=UNIT_VECTORS, precision=LOW_BITS, blocks=ALL_BLOCKS)
def test_low_bits_are_off_by_half_a_step_at_most_or_clipped(
    vectors: Float32, precision: LowBit, blocks: tuple[int, ...]
) -> None:
    codebook = codebook_of(blocks=blocks)
    levels = codebook.levels[precision].astype(np.float64)
    off = codebook.rotate(vectors) - codebook.center
    digits = codebook.digits(vectors, precision)
    error = np.abs(levels[digits] - off.clip(levels[0], levels[-1]))
    assert error.max() <= np.diff(levels).max() / 2 + 1e-6


@pytest.mark.parametrize(("precision", "cosine"), [("4bit", 0.99), ("2bit", 0.93), ("ternary", 0.88), ("binary", 0.77)])
@pytest.mark.parametrize("blocks", [(), (64, 64, 128)])
def test_low_bits_decode_near_the_vector(precision: LowBit, cosine: float, blocks: tuple[int, ...]) -> None:
    # A little below what a Gaussian has at its best, as these vectors are not those of the center.
    vectors = unit(np.random.default_rng(0).standard_normal((100, 256)).astype(np.float32))
    codebook = codebook_of(0, blocks, 256)
    for dimensions in (64, 128, 256):
        codes = truncate(quantize(vectors, precision, codebook), precision, dimensions)
        assert cosines(decode(codes, precision, dimensions, codebook), vectors[:, :dimensions]).mean() > cosine


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS, blocks=ALL_BLOCKS, seed=st.integers(0, 99))
def test_a_code_does_not_depend_on_those_beside_it(
    vectors: Float32, precision: Precision, blocks: tuple[int, ...], seed: int
) -> None:
    by = coder(precision, DIMENSIONS, blocks)
    codes = quantize(vectors, precision, by)
    order = np.random.default_rng(seed).permutation(len(vectors))
    assert np.array_equal(quantize(vectors[order], precision, by), codes[order])
    assert np.array_equal(np.concatenate([quantize(row[None], precision, by) for row in vectors]), codes)


@given(vectors=UNIT_VECTORS)
def test_float16_is_off_by_its_own_rounding_only(vectors: Float32) -> None:
    decoded = decode(quantize(vectors, "float16"), "float16", DIMENSIONS)
    assert np.abs(decoded - vectors).max() <= 2**-10


@given(vectors=UNIT_VECTORS)
def test_float32_is_exact(vectors: Float32) -> None:
    assert np.array_equal(quantize(vectors, "float32"), vectors)
    assert np.abs(decode(vectors, "float32", DIMENSIONS) - vectors).max() <= 1e-6


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS, blocks=ALL_BLOCKS, dimensions=SHORTER)
def test_decoded_vectors_have_unit_length(
    vectors: Float32, precision: Precision, blocks: tuple[int, ...], dimensions: int
) -> None:
    codes = truncate(quantize(vectors, precision, coder(precision, DIMENSIONS, blocks)), precision, dimensions)
    decoded = decode(codes, precision, dimensions, book(precision, DIMENSIONS, blocks))
    assert decoded.dtype == np.float32
    assert decoded.shape == (len(vectors), dimensions)
    lengths = np.linalg.norm(decoded, axis=1)
    # A vector that is zero in these dimensions has no direction and stays zero.
    assert np.all((np.abs(lengths - 1) <= 1e-5) | ~codes.any(axis=1))


@given(vectors=UNIT_VECTORS, scale=SCALES, dimensions=SHORTER)
def test_int8_codes_are_nested_bit_for_bit(vectors: Float32, scale: float, dimensions: int) -> None:
    vectors[:, 0] = 1
    of_the_full = truncate(quantize(vectors, "int8", scale), "int8", dimensions)
    assert np.array_equal(of_the_full, quantize(np.ascontiguousarray(vectors[:, :dimensions]), "int8", scale))


@pytest.mark.parametrize("precision", LOW_BIT)
@pytest.mark.parametrize(("blocks", "allowed"), [(BLOCKS, [8, 16, 32]), ((), range(1, 33))])
@given(vectors=UNIT_VECTORS)
def test_low_bits_are_nested_bit_for_bit(
    vectors: Float32, precision: LowBit, blocks: tuple[int, ...], allowed: Sequence[int]
) -> None:
    vectors[:, 0] = 1
    codebook, per_byte = codebook_of(blocks=blocks), {"4bit": 2, "2bit": 4, "ternary": 1, "binary": 8}[precision]
    codes = quantize(vectors, precision, codebook)
    for dimensions in allowed:
        if dimensions % per_byte == 0:
            prefix = quantize(np.ascontiguousarray(vectors[:, :dimensions]), precision, codebook)
            assert np.array_equal(truncate(codes, precision, dimensions), prefix)
            if precision != "ternary":
                assert np.array_equal(prefix, codes[:, : prefix.shape[1]])


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS, dimensions=SHORTER, shortest=SHORTER)
def test_truncating_twice_is_truncating_once(
    vectors: Float32, precision: Precision, dimensions: int, shortest: int
) -> None:
    codes = quantize(vectors, precision, coder(precision, DIMENSIONS))
    dimensions = max(dimensions, shortest)
    once = truncate(codes, precision, shortest)
    twice = truncate(truncate(codes, precision, dimensions), precision, shortest)
    assert np.allclose(once.astype(np.float32), twice.astype(np.float32), atol=2e-3 if precision == "float16" else 1e-6)
    if precision not in ("float32", "float16"):
        assert np.array_equal(once, twice)


@given(vectors=VECTORS, dimensions=SHORTER)
def test_truncated_floats_point_where_the_prefix_does(vectors: Float32, dimensions: int) -> None:
    vectors[:, 0] = 1
    cut = truncate(unit(vectors), "float32", dimensions)
    assert cosines(cut, vectors[:, :dimensions]).min() > 1 - 1e-6


def test_int8_decodes_near_the_vector() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((100, 256)).astype(np.float32))
    for dimensions in (64, 128, 256):
        codes = truncate(quantize(vectors, "int8", 0.002), "int8", dimensions)
        assert cosines(decode(codes, "int8", dimensions), vectors[:, :dimensions]).min() > 0.9999


def test_zero_vector_stays_zero() -> None:
    zeros = np.zeros((1, 8), np.float32)
    assert not unit(zeros).any()
    assert not decode(zeros.astype(np.int8), "int8", 8).any()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 1e-15])
def test_vector_without_a_length_is_not_decoded(precision: Precision, value: float) -> None:
    codes = np.ones((3, 8), DTYPES[precision])
    with np.errstate(all="ignore"):
        codes[2] = value
    if codes[2].any():  # 1e-15 is zero in float16
        assert refusal(lambda: decode(codes, precision, 8)).startswith("vector 2 is zero or not finite")


@pytest.mark.parametrize(
    ("precision", "by", "value"),
    [("float16", None, 1e-9), ("float16", None, 1e6), ("int8", 0.01, 1e-3), ("float32", None, 1e30)],
)
def test_vector_that_has_no_direction_as_a_code(precision: Precision, by: float | None, value: float) -> None:
    vectors = np.ones((3, 8), np.float32)
    vectors[1] = value
    assert refusal(lambda: quantize(vectors, precision, by)).startswith("vector 1 is zero or not finite")


def test_no_vectors_are_no_codes() -> None:
    none = np.empty((0, 16), np.float32)
    for precision in PRECISIONS:
        codes = quantize(none, precision, coder(precision, 16))
        assert codes.shape == (0, code_width(precision, 16))
        assert decode(codes, precision, 16, book(precision, 16)).shape == (0, 16)


# What has no code.


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [0, np.nan, np.inf, -np.inf])
def test_vector_without_a_direction(precision: Precision, value: float) -> None:
    vectors = np.ones((5, DIMENSIONS), np.float32)
    vectors[3, :] = value
    message = "vector 3 is zero or not finite, so it has no direction; leave it out, or embed it again"
    assert refusal(lambda: quantize(vectors, precision, coder(precision, DIMENSIONS))) == message
    assert refusal(lambda: check_vectors(vectors, 100)) == message.replace("3", "103")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vector_with_one_value_that_is_not_finite(value: float) -> None:
    vectors = np.ones((5, DIMENSIONS), np.float32)
    vectors[0, 7] = value
    assert refusal(lambda: quantize(vectors, "float32")).startswith("vector 0 is zero or not finite")


@pytest.mark.parametrize(
    ("precision", "by", "message"),
    [
        ("int8", None, "int8 codes are made by a scale, not by NoneType"),
        ("int8", codebook_of(), "int8 codes are made by a scale, not by Codebook"),
        ("binary", 0.004, "binary codes are made by a codebook, not by float"),
        ("4bit", None, "4bit codes are made by a codebook, not by NoneType"),
        ("float32", 0.004, "float32 codes are made by nothing, not by float"),
        ("float16", codebook_of(), "float16 codes are made by nothing, not by Codebook"),
    ],
)
def test_what_does_not_make_these_codes(precision: Precision, by: Any, message: str) -> None:
    vectors = np.ones((1, DIMENSIONS), np.float32)
    assert refusal(lambda: quantize(vectors, precision, by)) == message


@pytest.mark.parametrize(
    ("precision", "per_byte", "dimensions"),
    [("binary", 8, 1), ("binary", 8, 12), ("binary", 8, 1023), ("2bit", 4, 6), ("4bit", 2, 7)],
)
def test_codes_that_need_whole_bytes(precision: Precision, per_byte: int, dimensions: int) -> None:
    message = f"{precision} codes need a multiple of {per_byte} dimensions, not {dimensions}"
    assert refusal(lambda: code_width(precision, dimensions)) == message
    assert code_width("int8", dimensions) == dimensions
    assert code_width("ternary", dimensions) == -(-dimensions // 5)


@pytest.mark.parametrize("byte", [243, 255])
def test_byte_that_is_no_ternary_code(byte: int) -> None:
    codes = np.full((4, 7), 121, np.uint8)
    codes[2, 6] = byte
    message = f"ternary codes have bytes below 243, row 2 has {byte}; are these codes of another precision?"
    assert refusal(lambda: decode(codes, "ternary", 32, codebook_of())) == message
    assert refusal(lambda: truncate(codes, "ternary", 32)) == message
    assert decode(codes[:2], "ternary", 32, codebook_of()).shape == (2, 32)


def test_precisions_are_known_by_name() -> None:
    assert [check_precision(name) for name in PRECISIONS] == KNOWN.split(", ")
    with pytest.raises(InputError) as caught:
        check_precision("int4")
    assert str(caught.value) == f"unknown precision 'int4'; known: {KNOWN}; did you mean 'int8'?"


def test_every_precision_has_a_type() -> None:
    assert set(DTYPES) == set(PRECISIONS)
