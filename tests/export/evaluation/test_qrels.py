"""nDCG@10 and Recall@100 of rankings, compared with values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.sets.data import RetrievalSet

SET = RetrievalSet(
    name="s",
    kind="retrieval",
    documents={f"d{row}": "text" for row in range(120)},
    queries={"a": "text", "b": "text"},
    qrels={"a": {"d0": 2, "d5": 1}, "b": {"d119": 1}},
    languages=["en"] * 122,
)


def test_scores_of_rankings_are_those_by_hand() -> None:
    first = [1, 0, *range(6, 104)]  # d0 second, d5 not at all
    second = [*range(99), 119]  # d119 at place 100
    scores = QrelsScorer(SET).scores(np.array([first, second]))
    assert scores.ndcg == pytest.approx([100 * (2 / math.log2(3)) / (2 + 1 / math.log2(3)), 0])
    assert scores.recall == pytest.approx([50, 100])
