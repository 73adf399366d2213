"""nDCG@10 and Recall@100 of rankings by relevance judgements (qrels), computed with ir-measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedpack.errors import MissingExtraError
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.metrics.rankings import DEPTH, TOP, Ranks


@dataclass(frozen=True, eq=False)
class RankingScores:
    """Scores of one ranking a query, in points (100 is perfect)."""

    ndcg: Float64  # nDCG@10 of each query, float64 [queries]
    recall: Float64  # Recall@100 of each query, float64 [queries]


class QrelsScorer:
    """Scores rankings of one set by its relevance judgements."""

    def __init__(self, evaluation_set: RetrievalSet) -> None:
        """Read the judgements; raises MissingExtraError if ir-measures is not installed."""
        try:
            import ir_measures
        except ModuleNotFoundError as missing:
            raise MissingExtraError("bench", str(missing.name)) from missing
        self._ndcg, self._recall = ir_measures.nDCG @ TOP, ir_measures.R @ DEPTH
        self._evaluator = ir_measures.evaluator([self._ndcg, self._recall], evaluation_set.qrels)
        self._queries, self._documents = list(evaluation_set.queries), list(evaluation_set.documents)

    def scores(self, ranks: Ranks) -> RankingScores:
        """nDCG@10 and Recall@100 of every query.

        `ranks` are [queries, up to 100], in the set's order of queries and documents.
        """
        # Falling scores, one apart: ir-measures would break ties by the documents' names.
        run = {
            query: {self._documents[column]: float(DEPTH - place) for place, column in enumerate(row)}
            for query, row in zip(self._queries, ranks.tolist(), strict=True)
        }
        values: dict[tuple[str, str], float] = {
            (metric.query_id, str(metric.measure)): metric.value for metric in self._evaluator.iter_calc(run)
        }
        return RankingScores(
            *(
                np.array([100 * values[query, str(measure)] for query in self._queries])
                for measure in (self._ndcg, self._recall)
            )
        )
