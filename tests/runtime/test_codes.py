"""The definition of every precision: bounds of its error, and codes that are nested bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedpack import InputError
from embedpack.codes import (
    DTYPES,
    GRAPH_OUTPUTS,
    PRECISIONS,
    Float32,
    Precision,
    check_precision,
    code_width,
    decode,
    quantize,
    truncate,
    unit,
)

DIMENSIONS = 32
VECTORS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(DIMENSIONS)),
    elements=st.floats(-1, 1, width=32, allow_subnormal=False),
)
UNIT_VECTORS = VECTORS.filter(lambda vectors: bool((np.linalg.norm(vectors, axis=1) > 0.01).all())).map(unit)
SCALES = st.floats(0.001, 0.02)
SHORTER = st.sampled_from([8, 16, 24, 32])
ALL_PRECISIONS = st.sampled_from(PRECISIONS)


def cosines(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    first, second = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS, scale=SCALES)
def test_codes_have_the_type_and_width_of_the_table(vectors: Float32, precision: Precision, scale: float) -> None:
    codes = quantize(vectors, precision, scale)
    assert codes.dtype == DTYPES[precision]
    assert codes.shape == (len(vectors), code_width(precision, DIMENSIONS))


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
def test_binary_keeps_the_signs_first_dimension_in_the_highest_bit(vectors: Float32) -> None:
    codes = quantize(vectors, "binary", 1.0)
    bits = (codes[:, :, None] >> np.arange(7, -1, -1)) & 1
    assert np.array_equal(bits.reshape(len(vectors), -1), vectors > 0)
    assert np.array_equal(decode(codes, "binary", DIMENSIONS) > 0, vectors > 0)


@given(vectors=UNIT_VECTORS)
def test_float16_is_off_by_its_own_rounding_only(vectors: Float32) -> None:
    decoded = decode(quantize(vectors, "float16", 1.0), "float16", DIMENSIONS)
    assert np.abs(decoded - vectors).max() <= 2**-10


@given(vectors=UNIT_VECTORS)
def test_float32_is_exact(vectors: Float32) -> None:
    assert np.array_equal(quantize(vectors, "float32", 1.0), vectors)
    assert np.abs(decode(vectors, "float32", DIMENSIONS) - vectors).max() <= 1e-6


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS, dimensions=SHORTER)
def test_decoded_vectors_have_unit_length(vectors: Float32, precision: Precision, dimensions: int) -> None:
    codes = truncate(quantize(vectors, precision, 0.01), precision, dimensions)
    decoded = decode(codes, precision, dimensions)
    assert decoded.dtype == np.float32
    assert decoded.shape == (len(vectors), dimensions)
    lengths = np.linalg.norm(decoded, axis=1)
    # A vector that is zero in these dimensions has no direction and stays zero.
    assert np.all((np.abs(lengths - 1) <= 1e-5) | ~codes.any(axis=1))


@given(vectors=UNIT_VECTORS, precision=st.sampled_from(["int8", "binary"]), dimensions=SHORTER, scale=SCALES)
def test_codes_are_nested_bit_for_bit(vectors: Float32, precision: Precision, dimensions: int, scale: float) -> None:
    of_the_full = truncate(quantize(vectors, precision, scale), precision, dimensions)
    of_the_prefix = quantize(np.ascontiguousarray(vectors[:, :dimensions]), precision, scale)
    assert np.array_equal(of_the_full, of_the_prefix)


@given(vectors=UNIT_VECTORS, precision=ALL_PRECISIONS, dimensions=SHORTER, shortest=SHORTER)
def test_truncating_twice_is_truncating_once(
    vectors: Float32, precision: Precision, dimensions: int, shortest: int
) -> None:
    codes = quantize(vectors, precision, 0.01)
    dimensions = max(dimensions, shortest)
    once = truncate(codes, precision, shortest)
    twice = truncate(truncate(codes, precision, dimensions), precision, shortest)
    assert np.allclose(once.astype(np.float32), twice.astype(np.float32), atol=2e-3 if precision == "float16" else 1e-6)
    if precision in ("int8", "binary"):
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
    assert not decode(quantize(zeros, "int8", 0.01), "int8", 8).any()


def test_no_vectors_are_no_codes() -> None:
    none = np.empty((0, 16), np.float32)
    for precision in PRECISIONS:
        codes = quantize(none, precision, 0.01)
        assert codes.shape == (0, code_width(precision, 16))
        assert decode(codes, precision, 16).shape == (0, 16)


@pytest.mark.parametrize("dimensions", [1, 7, 9, 1023])
def test_binary_needs_whole_bytes(dimensions: int) -> None:
    with pytest.raises(InputError) as caught:
        code_width("binary", dimensions)
    assert str(caught.value) == f"binary codes need a multiple of 8 dimensions, not {dimensions}"
    assert code_width("int8", dimensions) == dimensions


def test_precisions_are_known_by_name() -> None:
    assert [check_precision(name) for name in PRECISIONS] == ["float32", "float16", "int8", "binary"]
    with pytest.raises(InputError) as caught:
        check_precision("int4")
    assert str(caught.value) == "unknown precision 'int4'; known: float32, float16, int8, binary; did you mean 'int8'?"


def test_every_precision_has_a_type_and_an_output() -> None:
    assert set(DTYPES) == set(GRAPH_OUTPUTS) == set(PRECISIONS)
