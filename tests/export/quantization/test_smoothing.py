"""Smoothing: lower error, no dominance of a few tokens, one factor where channels share it."""

from __future__ import annotations

import numpy as np
import pytest

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.smoothing import MIN_TOKENS, SmoothingChoice, choose_smoothing
from embedpack_export.quantization.statistics import SiteStatistics, StatisticsSum


def normal(rows: int, columns: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def alike(rows: int, columns: int, seed: int = 0) -> Float32:
    """Rows whose largest values hardly differ."""
    return np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)


def matrix(values: Float32) -> Matrix:
    rows, columns = values.shape
    return Matrix("layer.weight", (rows, columns), lambda rows: values[rows])


def statistics_of(tokens: Float32) -> SiteStatistics:
    collecting = StatisticsSum(tokens.shape[1], len(tokens))
    collecting.add(tokens)
    return collecting.result()


def relative_error(tokens: Float32, weights: Float32, chosen: SmoothingChoice) -> float:
    """Of products of int8 activations, as chosen, and int8 weights, per output; the mean over tokens."""

    def rounded(values: Float32, max_abs: np.float32 | None) -> Float32:
        step = (np.abs(values).max(axis=1, keepdims=True) if max_abs is None else max_abs) / 127
        return np.clip(np.rint(values / step), -127, 127) * step

    exact = tokens @ weights.T
    moved = rounded((tokens - chosen.shift) / chosen.layout.divisors, chosen.max_abs)
    found = moved @ rounded(weights * chosen.layout.divisors, None).T + weights @ chosen.shift
    return float((np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)).mean())


def nothing(columns: int) -> SmoothingChoice:
    layout = ChannelLayout(np.ones(columns, np.float32), (np.arange(columns),))
    return SmoothingChoice(np.zeros(columns, np.float32), layout, None, 0.0)


@pytest.mark.parametrize("shifts", [True, False])
def test_outlier_channels_cost_less_when_rescaled(shifts: bool) -> None:
    tokens, weights = normal(200, 64), normal(48, 64, seed=1)
    tokens[:, [3, 40]] *= 60
    chosen = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=shifts)
    fresh = normal(100, 64, seed=2)
    fresh[:, [3, 40]] *= 60
    assert relative_error(fresh, weights, chosen) < 0.5 * relative_error(fresh, weights, nothing(64))


def test_channels_far_from_zero_are_shifted_where_that_is_possible() -> None:
    tokens, weights = normal(200, 64), normal(48, 64, seed=1)
    tokens[:, 7] += 50
    shifted = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=True)
    fixed = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=False)
    assert shifted.shift[7] == pytest.approx(50, abs=2)
    assert not fixed.shift.any()
    assert relative_error(tokens, weights, shifted) < relative_error(tokens, weights, fixed)


def test_a_massive_token_does_not_decide() -> None:
    tokens, weights = normal(300, 64), normal(48, 64, seed=1)
    massive = tokens.copy()
    massive[0, 5] = 3000
    others = tokens[1:]
    chosen = choose_smoothing(statistics_of(massive), [matrix(weights)], shifts=False)
    plain = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=False)
    assert relative_error(others, weights, chosen) < 1.5 * relative_error(others, weights, plain)


def first_and_later(seed: int) -> tuple[Float32, Float32]:
    """First tokens with one massive channel, as in decoders, and the tokens after them."""
    first, later = normal(4, 64, seed) * np.float32(0.3), normal(2000, 64, seed + 1)
    first[:, 5] = 8
    return first, later


def test_first_tokens_in_the_sample_are_rounded_as_finely_as_others() -> None:
    weights = normal(48, 64) * np.where(np.arange(64) == 5, 0.02, 1).astype(np.float32)
    first, later = first_and_later(seed=1)
    collecting = StatisticsSum(64, len(first) + len(later))
    collecting.add(np.concatenate([first, later]))
    for _ in range(75):
        collecting.add_first(first)
    chosen = choose_smoothing(collecting.result(), [matrix(weights)], shifts=True)
    plain = choose_smoothing(statistics_of(np.concatenate([first, later])), [matrix(weights)], shifts=True)
    first, later = first_and_later(seed=3)
    assert relative_error(first, weights, chosen) < 0.7 * relative_error(first, weights, plain)
    assert relative_error(later, weights, chosen) < 1.1 * relative_error(later, weights, plain)


def test_rows_that_reach_alike_share_a_step() -> None:
    tokens, weights = alike(MIN_TOKENS, 64), normal(48, 64, seed=1)
    chosen = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=True)
    assert chosen.max_abs is not None
    assert (np.abs((tokens - chosen.shift) / chosen.layout.divisors) <= chosen.max_abs).all()
    own = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=False)
    fresh = alike(100, 64, seed=2)
    assert relative_error(fresh, weights, chosen) < 1.5 * relative_error(fresh, weights, own)


def with_first_tokens(first: Float32, tokens: Float32) -> SiteStatistics:
    """Statistics of one text for each first token, [n, k]; `tokens` are the others of all texts."""
    texts = np.concatenate([first[:, None], tokens.reshape(len(first), -1, tokens.shape[1])], axis=1)
    collecting = StatisticsSum(tokens.shape[1], texts.shape[0] * texts.shape[1])
    collecting.add(texts.reshape(-1, tokens.shape[1]))
    collecting.add_texts(texts, np.full(len(texts), texts.shape[1]))
    return collecting.result()


def steps_of(values: Float32, chosen: SmoothingChoice) -> Float32:
    """Values [..., k] in steps of the static scale."""
    assert chosen.max_abs is not None
    return ((values - chosen.shift) / (chosen.layout.divisors * chosen.max_abs / 127)).astype(np.float32)


def test_the_mean_of_first_tokens_is_exact_with_a_static_scale() -> None:
    tokens, first, weights = alike(MIN_TOKENS, 64), alike(20, 64, seed=3), normal(48, 64, seed=1)
    chosen = choose_smoothing(with_first_tokens(first, tokens), [matrix(weights)], shifts=True)
    multiples = steps_of(first.mean(axis=0), chosen)
    np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-3)
    assert not chosen.repeated
    assert (np.abs(steps_of(tokens, chosen)) <= 127).all()


@pytest.mark.parametrize("massive", [25, -25])
def test_a_massive_channel_of_first_tokens_is_repeated(massive: float) -> None:
    tokens, first, weights = alike(MIN_TOKENS, 64), alike(20, 64, seed=3), normal(48, 64, seed=1)
    first[:, 5] = massive
    chosen = choose_smoothing(with_first_tokens(first, tokens), [matrix(weights)], shifts=True)
    (channel,) = chosen.repeated
    assert channel.channel == 5
    assert 0 < abs(channel.steps) <= 127
    multiples = steps_of(first.mean(axis=0), chosen)
    assert multiples[5] == pytest.approx(np.copysign(127, massive) + 2 * channel.pairs * channel.steps, abs=0.01)
    assert (np.abs(steps_of(tokens, chosen)) <= 127).all()
    plain = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=True)
    assert relative_error(tokens, weights, chosen) < 1.1 * relative_error(tokens, weights, plain)


def test_rows_keep_steps_of_their_own_where_one_is_massive() -> None:
    tokens = alike(MIN_TOKENS, 64)
    tokens[0] *= 1000
    assert choose_smoothing(statistics_of(tokens), [matrix(normal(48, 64, seed=1))], shifts=True).max_abs is None


def test_only_what_can_be_shifted_shares_a_step() -> None:
    tokens = alike(MIN_TOKENS, 64)
    assert choose_smoothing(statistics_of(tokens), [matrix(normal(48, 64, seed=1))], shifts=False).max_abs is None


def test_a_few_tokens_do_not_tell_how_far_values_reach() -> None:
    tokens = alike(MIN_TOKENS - 1, 64)
    assert choose_smoothing(statistics_of(tokens), [matrix(normal(48, 64, seed=1))], shifts=True).max_abs is None


def test_divisors_have_the_geometric_mean_one() -> None:
    tokens = normal(100, 32) * np.exp(normal(1, 32, seed=3))
    chosen = choose_smoothing(statistics_of(tokens), [matrix(normal(16, 32, seed=1))], shifts=False)
    assert float(np.log(chosen.layout.divisors).mean()) == pytest.approx(0, abs=1e-5)
    assert (chosen.layout.divisors > 0).all()


def test_members_of_a_group_share_their_divisors() -> None:
    tokens = normal(100, 24) * np.exp(normal(1, 24, seed=3))
    weights, groups = matrix(normal(16, 24, seed=1)), ChannelGroups(2, 3, 4)
    chosen = choose_smoothing(statistics_of(tokens), [weights], shifts=False, groups=groups)
    divisors = chosen.layout.divisors.reshape(2, 3, 4)
    np.testing.assert_array_equal(divisors, np.broadcast_to(divisors[:, :1], (2, 3, 4)))
    assert len(np.unique(divisors[:, 0])) == 8


def test_all_layers_that_read_an_activation_count() -> None:
    tokens = normal(100, 24)
    weights = normal(16, 24, seed=1)
    large = weights.copy()
    large[:, 2] *= 100
    alone = choose_smoothing(statistics_of(tokens), [matrix(weights)], shifts=False)
    both = choose_smoothing(statistics_of(tokens), [matrix(weights), matrix(large)], shifts=False)
    assert both.layout.divisors[2] < 0.5 * alone.layout.divisors[2]


@pytest.mark.parametrize("value", [0.0, 1e-20])
@pytest.mark.parametrize("count", [20, MIN_TOKENS])
def test_an_activation_of_nothing_stays_finite(value: float, count: int) -> None:
    tokens = np.full((count, 16), value, np.float32)
    chosen = choose_smoothing(statistics_of(tokens), [matrix(normal(8, 16))], shifts=True)
    assert chosen.max_abs is None
    assert np.isfinite(chosen.shift).all()
    assert np.isfinite(chosen.layout.divisors).all()
