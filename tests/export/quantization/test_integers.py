"""Scales, nearest rounding and packing; the packed form is what onnxruntime's kernels read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from embedpack.vectors.arrays import Float32
from embedpack_export.quantization.integers import (
    ErrorSum,
    QuantizedScales,
    block_scales,
    dequantize_blocks,
    int8_scales,
    pack_blocks,
    paired_scales,
    round_nearest,
    within_pairs,
)
from tests.helpers.onnx_probe import run_node

BLOCK = 32


def matrix(rows: int, columns: int, seed: int = 0) -> Float32:
    """Values of very different size, a row of zeros, a block of zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)) * np.exp(rng.standard_normal((rows, 1)) * 2)
    values[1] = 0
    values[2, :BLOCK] = 0
    return values.astype(np.float32)


def dequantized(values: Float32, bits: int) -> Float32:
    scales = block_scales(values, bits, BLOCK)
    return dequantize_blocks(round_nearest(values, scales, bits, BLOCK), scales, BLOCK)


def by_column(scales: Float32, columns: int) -> Float32:
    return np.repeat(scales, BLOCK, axis=1)[:, :columns]


def test_int8_scales_reach_the_largest_value_of_a_row() -> None:
    rows = matrix(7, 48)
    scales = int8_scales(rows)
    assert scales.shape == (7,)
    assert scales.dtype == np.float32
    np.testing.assert_allclose(np.abs(rows / scales[:, None]).max(1)[[0, 2, 3, 4, 5, 6]], 127, rtol=1e-6)


def test_int8_error_is_at_most_half_a_step() -> None:
    rows = matrix(7, 48)
    scales = int8_scales(rows)[:, None]
    assert (np.abs(rows - np.rint(rows / scales) * scales) <= scales * np.float32(0.500001)).all()


def test_a_row_of_zeros_has_the_int8_scale_1() -> None:
    np.testing.assert_array_equal(int8_scales(np.zeros((2, 5), np.float32)), [1, 1])


def test_the_scales_of_tiny_rows_are_not_zero() -> None:
    rows = np.full((1, 4), 1e-38, np.float32)
    assert (int8_scales(rows) > 0).all()
    np.testing.assert_allclose(np.rint(rows / int8_scales(rows)[:, None]), 127)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [32, 64, 50, 5])
def test_blocks_have_a_scale_each_and_the_last_may_be_short(bits: int, columns: int) -> None:
    values = matrix(6, columns)
    scales = block_scales(values, bits, BLOCK)
    assert scales.shape == (6, -(-columns // BLOCK))
    assert scales.dtype == np.float32
    assert (scales != 0).all()
    assert pack_blocks(round_nearest(values, scales, bits, BLOCK), bits, BLOCK).shape == (
        6,
        scales.shape[1],
        BLOCK * bits // 8,
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_integers_stay_in_range(bits: int) -> None:
    values = matrix(6, 80)
    integers = round_nearest(values, block_scales(values, bits, BLOCK), bits, BLOCK)
    assert integers.min() >= -(1 << (bits - 1))
    assert integers.max() <= (1 << (bits - 1)) - 1
    np.testing.assert_array_equal(integers, np.rint(integers))


def test_8_bit_error_is_at_most_a_step_at_the_far_end_and_half_elsewhere() -> None:
    """The value opposite to the extreme one may be +128 steps away, of which 127 exist."""
    values = matrix(20, 80)
    scales = block_scales(values, 8, BLOCK)
    error = np.abs(values - dequantized(values, 8)) / np.abs(by_column(scales, 80))
    far = values / by_column(scales, 80) > 127
    assert error[~far].max() <= 0.50001
    assert error.max() <= 1.00001


def test_4_bit_blocks_are_no_worse_than_with_the_plain_scale() -> None:
    values = matrix(40, 64, seed=3)
    blocks = values.reshape(40, 2, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
    plain = np.where(largest == 0, 1, largest / np.float32(-8)).astype(np.float32)
    plainly = dequantize_blocks(round_nearest(values, plain, 4, BLOCK), plain, BLOCK)

    def errors(rounded: Float32) -> Float32:
        return np.square(values - rounded).reshape(40, 2, BLOCK).sum(-1)

    found = errors(dequantized(values, 4))
    assert (found <= errors(plainly) * np.float32(1.000001)).all()
    assert found.sum() < 0.98 * errors(plainly).sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_second_rounding_changes_nothing(bits: int) -> None:
    once = dequantized(matrix(6, 80), bits)
    np.testing.assert_allclose(dequantized(once, 8), once, rtol=0, atol=np.abs(once).max() / 250)
    scales = block_scales(matrix(6, 80), bits, BLOCK)
    integers = round_nearest(once, scales, bits, BLOCK)
    np.testing.assert_allclose(dequantize_blocks(integers, scales, BLOCK), once, rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zero(bits: int) -> None:
    values = matrix(6, 80)
    rounded = dequantized(values, bits)
    assert not rounded[1].any()
    assert not rounded[2, :BLOCK].any()
    assert np.isfinite(rounded).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_odd_in_the_sign(bits: int) -> None:
    values = matrix(6, 80)
    np.testing.assert_array_equal(dequantized(-values, bits), -dequantized(values, bits))


def test_4_bit_relative_error_of_normal_weights_is_below_ten_percent() -> None:
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    errors = ErrorSum()
    errors.add(values, dequantized(values, 4))
    assert 0.06 < errors.relative < 0.1


def test_8_bit_relative_error_of_normal_weights_is_below_one_percent() -> None:
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    errors = ErrorSum()
    errors.add(values, dequantized(values, 8))
    assert errors.relative < 0.01


def test_errors_of_chunks_add_up() -> None:
    values = matrix(6, 80)
    rounded = dequantized(values, 4)
    whole, parts = ErrorSum(), ErrorSum()
    whole.add(values, rounded)
    for rows in (slice(0, 1), slice(1, 6)):
        parts.add(values[rows], rounded[rows])
    assert parts.relative == pytest.approx(whole.relative, rel=1e-12)
    assert whole.relative == pytest.approx(np.linalg.norm(values - rounded) / np.linalg.norm(values), rel=1e-6)


def test_no_values_have_no_error() -> None:
    assert ErrorSum().relative == 0


def test_4_bit_values_are_packed_low_half_first() -> None:
    integers = np.array([[-8, 7, 0, -1]], np.float32)
    packed = pack_blocks(integers, 4, 4)
    np.testing.assert_array_equal(packed, [[[0 | 15 << 4, 8 | 7 << 4]]])


def test_8_bit_values_are_packed_with_128_added() -> None:
    packed = pack_blocks(np.array([[-128, 127, 0, -1]], np.float32), 8, 4)
    np.testing.assert_array_equal(packed, [[[0, 255, 128, 127]]])


@pytest.mark.parametrize(("bits", "zero"), [(4, 0x88), (8, 128)])
def test_a_short_block_is_filled_with_zeros(bits: int, zero: int) -> None:
    packed = pack_blocks(np.ones((1, 4), np.float32), bits, 8)
    assert (packed[0, 0, len(packed[0, 0]) // 2 :] == zero).all()


@pytest.mark.parametrize("columns", [32, 96, 50, 33])
def test_matmulnbits_multiplies_by_the_dequantized_matrix(columns: int) -> None:
    """The identity matrix as input gives the matrix that the kernel sees."""
    rows = 24
    values = matrix(rows, columns)
    scales = block_scales(values, 4, BLOCK)
    integers = round_nearest(values, scales, 4, BLOCK)
    found = run_node(
        "MatMulNBits",
        {"x": np.eye(columns, dtype=np.float32), "weight": pack_blocks(integers, 4, BLOCK), "scales": scales},
        "x",
        {"K": columns, "N": rows, "bits": 4, "block_size": BLOCK},
        ir.DataType.FLOAT,
    )
    np.testing.assert_allclose(found.T, dequantize_blocks(integers, scales, BLOCK), rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [32, 96, 50])
def test_gatherblockquantized_returns_the_dequantized_rows(bits: int, columns: int) -> None:
    """It takes as many columns as the table stores: the filling of a short last block has to go."""
    rows = 9
    values = matrix(rows, columns)
    scales = block_scales(values, bits, BLOCK)
    integers = round_nearest(values, scales, bits, BLOCK)
    table = pack_blocks(integers, bits, BLOCK).reshape(rows, -1)[:, : columns * bits // 8]
    ids = np.array([[8, 0, 1], [2, 2, 5]])
    found = run_node(
        "GatherBlockQuantized",
        {"table": table, "ids": ids, "scales": scales},
        "ids",
        {"bits": bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1},
        ir.DataType.FLOAT,
    )
    np.testing.assert_allclose(found, dequantize_blocks(integers, scales, BLOCK)[ids], rtol=1e-6)


def test_coded_scales_are_near_the_scales_and_never_zero() -> None:
    scales = block_scales(matrix(7, 160), 4, BLOCK)
    coded = QuantizedScales.of(scales)
    assert coded.codes.dtype == np.int8
    assert coded.steps.shape == (7, 1)
    assert coded.codes.all()
    largest = np.abs(scales).max(1, keepdims=True)
    assert (np.abs(coded.values - scales) <= largest / 127 * np.float32(1.0001)).all()
    np.testing.assert_array_equal(np.sign(coded.values), np.sign(scales))
    np.testing.assert_allclose(np.abs(coded.values).max(1), largest[:, 0], rtol=1e-6)


def test_a_scale_far_below_that_of_its_row_is_kept_above_zero() -> None:
    coded = QuantizedScales.of(np.array([[1, 1e-6, -1e-6]], np.float32))
    np.testing.assert_array_equal(coded.codes, [[127, 1, -1]])


def pair_sums(values: Float32) -> Float32:
    """Sizes of the largest sums that two neighbouring columns give with any u8, over 255."""
    even = values.shape[1] // 2 * 2
    pairs = values[:, :even].reshape(len(values), -1, 2)
    return np.maximum(np.maximum(pairs, 0).sum(-1), -np.minimum(pairs, 0).sum(-1))


@pytest.mark.parametrize("columns", [1, 2, 7, 64])
def test_paired_scales_leave_room_for_two_products_in_16_bits(columns: int) -> None:
    rows = np.random.default_rng(0).standard_normal((200, columns)).astype(np.float32)
    scales = paired_scales(rows)[:, None]
    assert (255 * pair_sums(np.rint(rows / scales)) <= 32767).all()
    assert (scales >= int8_scales(rows)[:, None]).all()


def test_paired_scales_are_no_larger_where_signs_differ() -> None:
    rows = np.tile(np.array([[1, -1]], np.float32), (3, 8))
    np.testing.assert_array_equal(paired_scales(rows), int8_scales(rows))


def test_within_pairs_takes_what_is_too_much_off_the_larger() -> None:
    values = np.array([[100, 40, -30, -120, 127, -127, 128, 0, 90]], np.float32)
    np.testing.assert_array_equal(within_pairs(values), [[88, 40, -30, -98, 127, -127, 128, 0, 90]])


def test_within_pairs_always_fits_and_changes_nothing_that_did() -> None:
    values = np.rint(np.random.default_rng(0).uniform(-127, 127, (300, 33))).astype(np.float32)
    found = within_pairs(values)
    assert (255 * pair_sums(found) <= 32767).all()
    fitted = pair_sums(values) <= 128
    np.testing.assert_array_equal(found[:, :32].reshape(300, 16, 2)[fitted], values[:, :32].reshape(300, 16, 2)[fitted])
