"""The ranking loss compared with a plain formula, at its extremes, and its determinism."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedpack_export.accuracy_check.self_retrieval import MIN_TEXTS, ReferenceRanking
from embedpack_export.metrics.bootstrap import interval, resampled_means


def units(count: int, dimensions: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ranking(vectors: np.ndarray, seed: int = 0) -> ReferenceRanking:
    return ReferenceRanking(vectors.astype(np.float64) @ vectors.astype(np.float64).T, seed)


def plainly(reference: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Loss and overlap, one query after the other."""
    losses, shares = [], []
    for query in range(len(reference)):
        others = [text for text in range(len(reference)) if text != query]
        alike = {text: float(reference[query].astype(float) @ reference[text].astype(float)) for text in others}
        median = float(np.median(list(alike.values())))
        gains = {text: max(0.0, value - median) for text, value in alike.items()}
        best = sorted(others, key=lambda text: -alike[text])[:10]
        found = sorted(others, key=lambda text: -float(scores[query, text]))[:10]
        ideal, dcg = (sum(gains[t] / math.log2(rank + 2) for rank, t in enumerate(top)) for top in (best, found))
        losses.append(100 * (1 - dcg / ideal))
        shares.append(len({*best} & {*found}) / 10)
    return float(np.mean(losses)), float(np.mean(shares))


def test_the_loss_is_that_of_the_formula() -> None:
    reference = units(20)
    scores = reference @ reference.T + 0.3 * np.random.default_rng(1).standard_normal((20, 20)).astype(np.float32)
    found = ranking(reference).compare(scores)
    loss, overlap = plainly(reference, scores)
    assert found.loss == pytest.approx(loss, abs=1e-3)
    assert found.overlap == pytest.approx(overlap, abs=1e-6)
    assert found.loss > 1
    low, high = found.interval
    assert 0 < low < found.loss < high


def test_the_reference_itself_loses_nothing() -> None:
    reference = units(30)
    found = ranking(reference).compare(reference @ reference.T)
    assert (found.loss, found.interval, found.overlap) == (0.0, (0.0, 0.0), 1.0)


def test_the_turned_ranking_loses_nearly_all() -> None:
    """The ten worst lie below the median, where the gain is 0."""
    reference = units(40)
    found = ranking(reference).compare(-(reference @ reference.T))
    assert found.loss == 100
    assert found.overlap == 0


def test_more_noise_loses_more() -> None:
    reference, noise = units(40), np.random.default_rng(2).standard_normal((40, 40)).astype(np.float32)
    losses = [ranking(reference).compare(reference @ reference.T + size * noise).loss for size in (0.01, 0.05, 0.2, 1)]
    assert losses == sorted(losses)
    assert losses[0] < 0.5 < 10 < losses[-1]


def test_texts_that_are_all_alike_cannot_be_ranked_wrongly() -> None:
    same = np.tile(units(1), (MIN_TEXTS, 1))
    assert ranking(same).compare(np.zeros((MIN_TEXTS, MIN_TEXTS), np.float32)).loss == 0


def test_the_interval_covers_the_true_loss_about_as_often_as_it_says() -> None:
    """Intervals of small samples of a large set's losses hold the mean of all."""
    rng = np.random.default_rng(6)
    losses = rng.gamma(1.0, 2.0, 20_000)
    samples = [resampled_means(rng.choice(losses, (100, 1)), np.random.default_rng(0)) for _ in range(100)]
    held = [low <= 2.0 <= high for low, high in (interval(means[:, 0]) for means in samples)]
    assert 85 <= sum(held) <= 100


def test_the_same_seed_gives_the_same_interval() -> None:
    reference = units(20)
    scores = reference @ np.roll(reference, 1, axis=1).T
    one, again, other = (ranking(reference, seed).compare(scores).interval for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_digits_that_hang_on_threads_do_not_count() -> None:
    reference = units(24)
    scores = (reference @ reference.T).astype(np.float64)
    nudged = scores + 1e-9 * np.random.default_rng(0).standard_normal(scores.shape)
    assert ranking(reference).compare(scores) == ranking(reference).compare(nudged)
