"""Metrics compared with values by hand, coverage of intervals, the three outcomes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from embedpack_export.evaluation.results import Measure, QueryScores, SetResult, Setting
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.summary import summarise_tasks
from embedpack_export.metrics.bootstrap import Interval, interval, resampled_means, set_generator
from embedpack_export.metrics.cosines import row_cosines, summarise_by_label, summarise_cosines
from embedpack_export.metrics.non_inferiority import non_inferiority
from embedpack_export.metrics.rankings import rank_biased_overlap, spearman, spearman_parts, top_k_overlap

JUDGED = RetrievalSet(
    name="s",
    kind="retrieval",
    documents={f"d{row}": "text" for row in range(120)},
    queries={"a": "text", "b": "text"},
    qrels={"a": {"d0": 2, "d5": 1}, "b": {"d119": 1}},
    languages=["en"] * 122,
)


def test_rankings_are_judged_as_by_hand() -> None:
    first = [1, 0, *range(6, 104)]  # d0 second, d5 not at all
    second = [*range(99), 119]  # d119 at place 100
    scores = QrelsScorer(JUDGED).scores(np.array([first, second]))
    assert scores.ndcg == pytest.approx([100 * (2 / math.log2(3)) / (2 + 1 / math.log2(3)), 0])
    assert scores.recall == pytest.approx([50, 100])


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


def test_cosines_are_those_by_hand() -> None:
    found = row_cosines(np.array([[2, 0], [1, 1]], np.float32), np.array([[1, 0], [1, 0]], np.float32))
    assert found == pytest.approx([1, math.sqrt(0.5)])
    assert summarise_cosines(found).mean == pytest.approx((1 + math.sqrt(0.5)) / 2, abs=1e-7)
    assert summarise_by_label(found, ["en", "de"])["de"].min == pytest.approx(math.sqrt(0.5), abs=1e-7)


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
    for trial in range(300):
        bounds = interval(means(str(trial), 1, 500, rng.normal(size=(80, 1)))[:, 0])
        covered += bounds[0] <= 0 <= bounds[1]
    assert 0.90 <= covered / 300 <= 0.98


def test_loss_below_the_margin_is_non_inferior() -> None:
    verdict = non_inferiority(-0.05, Interval(-0.2, 0.1), [1000, 1000], margin=0.3)
    assert verdict.outcome == "non-inferior"
    assert (verdict.low, verdict.high, verdict.needed) == (-0.2, 0.1, None)
    assert str(verdict) == "non-inferior"


def test_loss_above_the_margin_is_inferior() -> None:
    verdict = non_inferiority(-1.0, Interval(-1.4, -0.6), [2000], margin=0.3)
    assert (verdict.outcome, str(verdict), verdict.needed) == ("inferior", "inferior", None)


def test_what_cannot_be_told_says_how_many_queries_it_would_take() -> None:
    verdict = non_inferiority(-0.1, Interval(-0.5, 0.3), [1000], margin=0.3)
    assert verdict.outcome == "not resolvable"
    # Twice as far from the margin as there is room.
    assert verdict.needed == 4000
    assert str(verdict) == "not resolvable with 1,000 queries; about 4,000 would be needed"
    assert non_inferiority(-0.5, Interval(-0.9, -0.1), [1000], margin=0.3).needed == 4000
    assert non_inferiority(-0.3, Interval(-0.5, -0.1), [1000], margin=0.3).needed is None


@pytest.mark.parametrize("difference", [0.0, 0.5, 5.0])
def test_few_queries_never_pass(difference: float) -> None:
    verdict = non_inferiority(difference, Interval(difference, difference), [50], margin=0.3)
    assert verdict.outcome == "not resolvable"
    assert verdict.low == pytest.approx(difference - 1.96 * 2 / math.sqrt(50))
    assert verdict.needed is not None
    assert (
        non_inferiority(difference, Interval(difference, difference), [verdict.needed], margin=0.3).outcome
        == "non-inferior"
    )


def test_sets_count_the_same_however_large() -> None:
    verdict = non_inferiority(0, Interval(0, 0), [400, 100], margin=0.3)
    assert verdict.high == pytest.approx(1.96 * 2 / 2 * math.sqrt(1 / 400 + 1 / 100))


def result(variant: str, name: str, measure: Measure, differences: list[float]) -> SetResult:
    change, reference = float(np.mean(differences)), np.full(len(differences), 80.0)
    return SetResult(
        set=name,
        queries=len(differences),
        reference=80.0,
        score=80.0 + change,
        difference=change,
        recall_at_100=None,
        top_10_overlap=None,
        rank_biased_overlap=None,
        cosine=None,
        per_query=QueryScores(
            setting=Setting(variant, "single", 384, "float32"),
            measure=measure,
            scores=reference + np.array(differences),
            reference=reference,
            languages=["en"] * len(differences),
            full_reference=80.0,
            bytes=1536,
        ),
    )


def test_tasks_are_pooled_by_their_weights_and_every_set_counts_the_same() -> None:
    spread = np.random.default_rng(0).normal(0, 1, 2000)
    results = [
        result("retrieval-int8", "a", "nDCG@10", (spread - spread.mean() - 0.4).tolist()),
        result("code-int8", "b", "nDCG@10", (spread[:800] - spread[:800].mean() + 0.3).tolist()),
        result("matching-int8", "c", "Spearman", (spread - spread.mean() + 0.1).tolist()),
        result("retrieval-int4", "a", "nDCG@10", [-2.0] * 2000),
    ]
    weights = {each.by_query.setting.variant: each.by_query.setting.variant[-4:] for each in results}
    int8, int4 = summarise_tasks(results, weights, margin=0.3, seed=1)
    assert (int8.weights, int8.stored, int8.sets, int8.test.queries) == ("int8", "384 float32", 3, 4800)
    assert int8.test.difference == pytest.approx(0, abs=1e-4)
    assert int8.test.outcome == "non-inferior"
    assert int8.test.high - int8.test.low == pytest.approx(
        2 * 1.96 * 2 / 3 * math.sqrt(1 / 2000 + 1 / 800 + 1 / 2000), rel=0.05
    )
    assert (int4.weights, int4.sets, int4.test.outcome) == ("int4", 1, "inferior")
