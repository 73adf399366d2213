"""Rounding to fit the activations: better than nearest where they are correlated, nearest where they are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from embedpack.vectors.arrays import Float32
from embedpack_export.quantization.gptq import PRODUCT_COLUMNS, Rounding, round_columns, roundings
from embedpack_export.quantization.integers import block_scales, int8_scales, round_nearest
from embedpack_export.quantization.statistics import SiteStatistics, StatisticsSum

LIMITS = (-127, 127)


def weights(rows: int, columns: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def correlated(columns: int, seed: int = 1) -> Float32:
    """Covariance of activations that live in few directions, with channels of very different size."""
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((columns // 4, columns)) * np.exp(rng.standard_normal(columns) * 0.7)
    return (few.T @ few / len(few) + 0.01 * np.eye(columns)).astype(np.float32)


def output_error(exact: Float32, rounded: Float32, covariance: Float32) -> float:
    """Mean squared error of the products with activations of that covariance."""
    difference = (exact - rounded).astype(np.float64)
    return float(np.einsum("nk,kl,nl->", difference, covariance.astype(np.float64), difference))


@pytest.mark.parametrize("columns", [16, PRODUCT_COLUMNS, PRODUCT_COLUMNS + 1, 150])
def test_int4_output_error_is_lower_than_of_nearest(columns: int) -> None:
    matrix, covariance = weights(12, columns), correlated(columns)
    block_scale = block_scales(matrix, 4, 32)
    scales = np.repeat(block_scale, 32, axis=1)[:, :columns]
    nearest = round_nearest(matrix, block_scale, 4, 32)
    fitted = Rounding.for_covariance(covariance).round(matrix, scales, -8, 7)
    assert output_error(matrix, fitted * scales, covariance) < 0.5 * output_error(matrix, nearest * scales, covariance)
    assert np.linalg.norm(matrix - fitted * scales) > np.linalg.norm(matrix - nearest * scales)


@pytest.mark.parametrize("columns", [16, PRODUCT_COLUMNS, PRODUCT_COLUMNS + 1, 150])
def test_int8_output_error_is_lower_than_of_nearest(columns: int) -> None:
    matrix, covariance = weights(12, columns), correlated(columns)
    scales = int8_scales(matrix)[:, None]
    nearest = np.clip(np.rint(matrix / scales), -127, 127)
    fitted = Rounding.for_covariance(covariance).round(matrix, scales, -127, 127)
    assert output_error(matrix, fitted * scales, covariance) < 0.5 * output_error(matrix, nearest * scales, covariance)


@pytest.mark.parametrize("variances", ["equal", "different"])
def test_uncorrelated_activations_give_nearest(variances: str) -> None:
    columns = 150
    spread = np.ones(columns) if variances == "equal" else np.exp(np.random.default_rng(2).standard_normal(columns))
    matrix = weights(9, columns)
    scales = np.abs(weights(9, columns, seed=3)) + np.float32(0.1)
    fitted = Rounding.for_covariance(np.diag(spread).astype(np.float32)).round(matrix, scales, -8, 7)
    np.testing.assert_array_equal(fitted, np.clip(np.rint(matrix / scales), -8, 7))


def test_much_damping_gives_nearest() -> None:
    """Fewer tokens have less weight."""
    matrix = weights(9, 60)
    scales = np.abs(weights(9, 60, seed=3)) + np.float32(0.1)
    nearest = np.clip(np.rint(matrix / scales), -8, 7)
    near, far = (
        (Rounding.for_covariance(correlated(60), damping).round(matrix, scales, -8, 7) != nearest).mean()
        for damping in (0.01, 100)
    )
    assert near > 0.1
    assert far < 0.01


def test_a_regression_divides_by_the_damped_covariance() -> None:
    covariance = correlated(60).astype(np.float64)
    products = weights(9, 60)
    damped = covariance + 0.2 * covariance.diagonal().mean() * np.eye(60)
    found = Rounding.for_covariance(covariance, 0.2).regression(products)
    np.testing.assert_allclose(found, products @ np.linalg.inv(damped), rtol=1e-3, atol=1e-3)


def test_columns_are_taken_in_the_order_of_falling_variance() -> None:
    covariance = np.diag(np.array([2, 9, 4, 9], np.float32))
    np.testing.assert_array_equal(Rounding.for_covariance(covariance).order, [1, 3, 2, 0])


def test_columns_come_back_to_their_places() -> None:
    """Rounding a permuted problem permutes the result."""
    columns = 100
    matrix, covariance = weights(5, columns), correlated(columns)
    scales = np.abs(weights(5, columns, seed=3)) + np.float32(0.1)
    plain = Rounding.for_covariance(covariance).round(matrix, scales, -8, 7)
    shuffle = np.random.default_rng(4).permutation(columns)
    shuffled = Rounding.for_covariance(covariance[shuffle][:, shuffle])
    np.testing.assert_array_equal(shuffled.round(matrix[:, shuffle], scales[:, shuffle], -8, 7), plain[:, shuffle])


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_only_save_time(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Errors reach later columns at once or at the end of their block: the integers are the same."""
    matrix, rounding = weights(6, 150), Rounding.for_covariance(correlated(150))
    scales = int8_scales(matrix)[:, None]
    plain = rounding.round(matrix, scales, -127, 127)
    monkeypatch.setattr("embedpack_export.quantization.gptq.PRODUCT_COLUMNS", block)
    np.testing.assert_array_equal(rounding.round(matrix, scales, -127, 127), plain)


def test_rows_do_not_touch_each_other() -> None:
    matrix, rounding = weights(6, 70), Rounding.for_covariance(correlated(70))
    scales = int8_scales(matrix)[:, None]
    whole = rounding.round(matrix, scales, -127, 127)
    for row in range(6):
        alone = rounding.round(matrix[row : row + 1], scales[row : row + 1], -127, 127)
        np.testing.assert_array_equal(alone[0], whole[row])


def test_one_scale_a_row_and_the_same_for_every_column_agree() -> None:
    matrix, rounding = weights(6, 70), Rounding.for_covariance(correlated(70))
    scales = int8_scales(matrix)[:, None]
    by_row = rounding.round(matrix, scales, -127, 127)
    np.testing.assert_array_equal(rounding.round(matrix, np.repeat(scales, 70, axis=1), -127, 127), by_row)


def test_integers_stay_in_range() -> None:
    matrix = weights(6, 70)
    integers = Rounding.for_covariance(correlated(70)).round(matrix, np.full((6, 70), 0.05, np.float32), -8, 7)
    assert (integers.min(), integers.max()) == (-8, 7)
    np.testing.assert_array_equal(integers, np.rint(integers))


def test_weights_on_the_grid_stay_where_they_are() -> None:
    rng = np.random.default_rng(5)
    integers = rng.integers(-127, 128, (6, 70)).astype(np.float32)
    scales = np.full((6, 1), 2.0**-6, np.float32)
    rounded = Rounding.for_covariance(correlated(70)).round(integers * scales, scales, -127, 127)
    np.testing.assert_array_equal(rounded, integers)


def test_the_weights_themselves_are_left_alone() -> None:
    matrix = weights(6, 70)
    before = matrix.copy()
    Rounding.for_covariance(correlated(70)).round(matrix, int8_scales(matrix)[:, None], -127, 127)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("columns", [1, 40])
def test_channels_that_calibration_never_saw_are_rounded_to_nearest(columns: int) -> None:
    matrix = weights(4, columns)
    scales = int8_scales(matrix)[:, None]
    rounded = Rounding.for_covariance(np.zeros((columns, columns), np.float32)).round(matrix, scales, -127, 127)
    np.testing.assert_array_equal(rounded, np.rint(matrix / scales))


def test_a_covariance_of_few_tokens_is_no_obstacle() -> None:
    """Three tokens, forty channels: singular, and with rounding errors not even positive."""
    tokens = weights(3, 40).astype(np.float64)
    covariance = np.cov(tokens, rowvar=False, bias=True).astype(np.float32)
    matrix = weights(8, 40, seed=6)
    scales = np.full((8, 1), 0.3, np.float32)
    fitted = Rounding.for_covariance(covariance).round(matrix, scales, -8, 7)
    nearest = np.clip(np.rint(matrix / scales), -8, 7)
    assert np.isfinite(fitted).all()
    assert output_error(matrix, fitted * scales, covariance) < output_error(matrix, nearest * scales, covariance)


def far_from_zero(tokens: int = 300, columns: int = 24) -> Float32:
    """Activations of which one channel hardly moves, thousands away from zero (decoders have such channels)."""
    values = weights(tokens, columns)
    values[:, 5] = values[:, 5] * np.float32(0.5) + np.float32(3000)
    return values


def collected(tokens: Float32) -> SiteStatistics:
    collecting = StatisticsSum(tokens.shape[1], len(tokens))
    for start in range(0, len(tokens), 70):
        collecting.add(tokens[start : start + 70])
    return collecting.result()


def weighted_covariance(tokens: Float32) -> npt.NDArray[np.float64]:
    """Each token has the weight 1 / its squared length."""
    exact = tokens.astype(np.float64)
    return np.cov(exact, rowvar=False, ddof=0, aweights=1 / np.square(exact).sum(1))


def test_statistics_are_those_of_all_tokens_at_once() -> None:
    tokens = weights(300, 24)
    found = collected(tokens)
    mean = np.average(tokens, axis=0, weights=1 / np.square(tokens).sum(1))
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_array_equal(found.low, tokens.min(0))
    np.testing.assert_array_equal(found.high, tokens.max(0))
    np.testing.assert_allclose(found.covariance[0], weighted_covariance(tokens), atol=1e-5)
    assert len(found.covariance) == 1


def test_a_few_huge_tokens_do_not_decide() -> None:
    """Decoders have massive activations in the first token of a text."""
    tokens = weights(300, 24)
    plain = collected(tokens)
    huge = tokens.copy()
    huge[[0, 100, 200]] *= 1000
    found = collected(huge)
    np.testing.assert_allclose(found.mean, plain.mean, atol=0.02)
    # Of each of them there is its direction, at the weight of any other token.
    np.testing.assert_allclose(found.covariance[0], plain.covariance[0], atol=0.05)
    assert found.high.max() > 100 * plain.high.max()


def test_tokens_of_zeros_do_not_decide() -> None:
    tokens = weights(300, 24)
    with_zeros = np.concatenate([tokens, np.zeros((5, 24), np.float32)])
    found, plain = collected(with_zeros), collected(tokens)
    np.testing.assert_allclose(found.mean, plain.mean, atol=1e-6)
    np.testing.assert_allclose(found.covariance[0], plain.covariance[0], atol=1e-6)
    assert roundings(found.covariance, np.ones(24, np.float32))


def test_a_site_that_is_never_anything_but_zero_is_no_obstacle() -> None:
    found = collected(np.zeros((30, 24), np.float32))
    assert not found.mean.any()
    (rounding,) = roundings(found.covariance, np.ones(24, np.float32))
    matrix = weights(4, 24)
    scales = int8_scales(matrix)[:, None]
    np.testing.assert_array_equal(rounding.round(matrix, scales, *LIMITS), np.rint(matrix / scales))


def test_channels_of_different_blocks_have_no_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack_export.quantization.covariances.COVARIANCE_CHANNELS", 10)
    tokens = weights(300, 24)
    found = collected(tokens)
    whole = weighted_covariance(tokens)
    assert [block.shape for block in found.covariance] == [(10, 10), (10, 10), (4, 4)]
    for start, block in zip((0, 10, 20), found.covariance, strict=True):
        stop = start + len(block)
        np.testing.assert_allclose(block, whole[start:stop, start:stop], atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 70, 2000])
def test_the_sample_is_even_however_the_tokens_come(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("embedpack_export.quantization.statistics.SAMPLE", 100)
    tokens = weights(1000, 3)
    collecting = StatisticsSum(3, len(tokens))
    for start in range(0, len(tokens), size):
        collecting.add(tokens[start : start + size])
    np.testing.assert_array_equal(collecting.result().sample, tokens[::10])


def test_few_tokens_are_all_in_the_sample() -> None:
    tokens = weights(300, 24)
    np.testing.assert_array_equal(collected(tokens).sample, tokens)


def test_first_tokens_are_in_the_sample_up_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack_export.quantization.statistics.SAMPLE", 100)
    tokens = weights(1000, 3)
    collecting = StatisticsSum(3, len(tokens))
    for start in range(0, len(tokens), 70):
        collecting.add(tokens[start : start + 70])
        collecting.add_first(tokens[start : start + 8])
    found = collecting.result()
    first = np.concatenate([tokens[start : start + 8] for start in range(0, 1000, 70)])[:100]
    np.testing.assert_array_equal(found.sample, np.concatenate([tokens[::10], first]))
    assert found.tokens == 1000


def test_means_of_texts_weigh_as_much_as_their_tokens() -> None:
    texts = (weights(60, 8) + np.repeat(weights(6, 8, seed=2), 10, axis=0)).reshape(6, 10, 8)
    lengths = np.array([10, 4, 7, 10, 1, 9])
    real = [text[:length] for text, length in zip(texts, lengths, strict=True)]
    collecting = StatisticsSum(8, int(lengths.sum()))
    for part in (slice(0, 3), slice(3, 6)):
        collecting.add(np.concatenate(real[part]))
        collecting.add_texts(texts[part], lengths[part])
    means = np.stack([text.mean(axis=0) for text in real])
    found, plain = collecting.result(), collected(np.concatenate(real))
    between = collected(means).covariance[0] / np.trace(collected(means).covariance[0])
    alone = plain.covariance[0] / np.trace(plain.covariance[0])
    direction = np.linalg.eigh(between - alone)[1][:, -1]
    joint = found.covariance[0] / np.trace(found.covariance[0])
    assert direction @ alone @ direction < direction @ joint @ direction < direction @ between @ direction
    assert np.linalg.eigvalsh(found.covariance[0]).min() > 0
    np.testing.assert_allclose(found.mean, plain.mean, atol=1e-5)
    np.testing.assert_array_equal(found.sample, plain.sample)


def test_first_tokens_are_apart_from_the_others() -> None:
    texts, lengths = weights(24, 8).reshape(4, 6, 8), np.array([6, 1, 3, 5])
    collecting = StatisticsSum(8, int(lengths.sum()))
    collecting.add(np.concatenate([text[:length] for text, length in zip(texts, lengths, strict=True)]))
    collecting.add_texts(texts, lengths)
    first = collecting.result().first
    later = np.concatenate([text[1:length] for text, length in zip(texts, lengths, strict=True)])
    assert first is not None
    np.testing.assert_allclose(first.mean, texts[:, 0].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(first.low, later.min(axis=0))
    np.testing.assert_array_equal(first.high, later.max(axis=0))


def test_blocks_of_channels_are_rounded_on_their_own() -> None:
    matrix = weights(6, 70)
    scales = int8_scales(matrix)[:, None]
    covariance = (correlated(40), correlated(30, seed=2))
    divisors = np.exp(weights(1, 70, seed=3)[0])
    found = round_columns(
        roundings([block.astype(np.float64) for block in covariance], divisors), matrix, scales, *LIMITS
    )
    for columns, block in ((slice(0, 40), covariance[0]), (slice(40, 70), covariance[1])):
        part = divisors[columns]
        alone = Rounding.for_covariance(block.astype(np.float64) / np.outer(part, part))
        np.testing.assert_array_equal(found[:, columns], alone.round(matrix[:, columns], scales, *LIMITS))


def test_blocks_of_channels_may_have_scales_of_their_own() -> None:
    """As 4-bit blocks do."""
    matrix = weights(6, 70)
    scales = np.abs(weights(6, 70, seed=3)) + np.float32(0.1)
    blocks = roundings([correlated(40).astype(np.float64), np.eye(30)], np.ones(70, np.float32))
    found = round_columns(blocks, matrix, scales, -8, 7)
    np.testing.assert_array_equal(found[:, 40:], np.clip(np.rint(matrix / scales), -8, 7)[:, 40:])
    assert (found[:, :40] != np.clip(np.rint(matrix / scales), -8, 7)[:, :40]).any()


def test_the_covariance_of_a_channel_far_from_zero_is_not_lost() -> None:
    tokens = far_from_zero()
    expected = weighted_covariance(tokens)
    np.testing.assert_allclose(collected(tokens).covariance[0], expected, atol=1e-3)


def test_a_channel_far_from_zero_is_no_obstacle_to_rounding() -> None:
    (rounding,) = roundings(collected(far_from_zero()).covariance, np.ones(24, np.float32))
    matrix = weights(8, 24)
    assert np.isfinite(rounding.round(matrix, int8_scales(matrix)[:, None], -127, 127)).all()
