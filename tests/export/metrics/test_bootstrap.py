"""Bootstrap: paired draws, seeds, coverage of intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from embedpack_export.metrics.bootstrap import interval, resampled_means, set_generator


def means(name: str, seed: int, resamples: int, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return resampled_means(values, set_generator(name, seed), resamples)


def test_draws_are_the_same_for_a_seed_and_others_for_another_set() -> None:
    values = np.random.default_rng(0).normal(size=(50, 2))
    first = means("a", 7, 300, values)
    assert first.shape == (300, 2)
    assert (first == means("a", 7, 300, values)).all()
    assert not np.allclose(first, means("b", 7, 300, values))
    assert not np.allclose(first, means("a", 8, 300, values))


def test_draws_are_paired() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    both = means("a", 7, 300, np.concatenate([values, values + 0.25], axis=1))
    assert both[:, 1] - both[:, 0] == pytest.approx(0.25)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for number in range(300):
        bounds = interval(means(str(number), 1, 500, rng.normal(size=(80, 1)))[:, 0])
        covered += bounds[0] <= 0 <= bounds[1]
    assert 0.90 <= covered / 300 <= 0.98
