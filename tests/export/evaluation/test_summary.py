"""Results over the sets of several tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedpack_export.evaluation.results import Measure, QueryScores, SetResult, Setting
from embedpack_export.evaluation.summary import summarise_tasks


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


def test_tasks_are_combined_by_their_weights_and_every_set_has_the_same_weight() -> None:
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
