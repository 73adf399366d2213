"""Overlap of rankings and Spearman's correlation, compared with values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedpack_export.metrics.rankings import rank_biased_overlap, spearman, spearman_parts, top_k_overlap


def test_overlap_and_rank_biased_overlap_are_those_by_hand() -> None:
    one, other = np.array([[1, 2, 3]]), np.array([[2, 1, 9]])
    assert top_k_overlap(one, other) == pytest.approx(2 / 3)
    # Common documents among the first one, two and three: 0, 2, 2.
    expected = (1 - 0.9) / 0.9 * (2 / 2 * 0.9**2 + 2 / 3 * 0.9**3) + 2 / 3 * 0.9**3
    assert rank_biased_overlap(one, other) == pytest.approx(expected)
    rankings = np.array([np.random.default_rng(row).permutation(100) for row in range(70)])
    assert rank_biased_overlap(rankings, rankings) == pytest.approx(1)


def test_spearman_is_that_by_hand() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4.
    assert spearman([0, 1, 1, 3], [0.1, 0.5, 0.4, 0.9]) == pytest.approx(100 * 4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


def test_parts_of_spearman_are_jackknife_values() -> None:
    rng = np.random.default_rng(3)
    human = rng.integers(0, 5, 70).astype(float)
    scores = human + rng.normal(0, 1, 70)
    left = [spearman(np.delete(human, row), np.delete(scores, row)) for row in range(70)]
    expected = 70 * spearman(human, scores) - 69 * np.array(left)
    assert spearman_parts(human, scores) == pytest.approx(expected)
