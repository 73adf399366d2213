"""Scores one evaluation set under many settings, against the relevance judgements and against the reference."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embedpack import Embeddings, MultiEmbeddings, maxsim, search
from embedpack.scoring.cosine import similarity_factors
from embedpack.scoring.top_k import smallest
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.results import Measure, QueryScores, SetResult, Setting
from embedpack_export.evaluation.scoring.encoding import MultiVectorPair, VectorPair
from embedpack_export.evaluation.scoring.qrels import QrelsScorer, RankingScores
from embedpack_export.evaluation.sets.data import PairSet, RetrievalSet
from embedpack_export.metrics.cosines import CosineSummary, row_cosines, summarise_cosines
from embedpack_export.metrics.rankings import DEPTH, Ranks, rank_biased_overlap, spearman, spearman_parts, top_k_overlap


@dataclass(frozen=True)
class ReferenceScore:
    """Score of the reference in one set, in points."""

    score: float  # nDCG@10 or Spearman's correlation
    recall_at_100: float | None  # None: pairs have no recall


@dataclass(frozen=True, eq=False)
class _Ranking:
    """A ranking with its scores."""

    ranks: Ranks
    scores: RankingScores


@dataclass(frozen=True, eq=False)
class _Correlation:
    """Spearman's correlation with human scores, in points."""

    value: float
    parts: Float64  # pseudo-value of each pair (`spearman_parts`), float64 [pairs]


class _RankingScorer:
    """Scores rankings of one set."""

    measure: Measure = "nDCG@10"

    def __init__(self, evaluation_set: RetrievalSet, qrels: QrelsScorer) -> None:
        self.evaluation_set = evaluation_set
        self._qrels = qrels

    def _scored(self, ranks: Ranks) -> _Ranking:
        return _Ranking(ranks, self._qrels.scores(ranks))

    def _result(
        self, query_scores: QueryScores, ranking: _Ranking, exact: _Ranking, cosine: CosineSummary | None
    ) -> SetResult:
        score, reference = float(ranking.scores.ndcg.mean()), float(exact.scores.ndcg.mean())
        return SetResult(
            set=self.evaluation_set.name,
            queries=len(ranking.scores.ndcg),
            reference=reference,
            score=score,
            difference=score - reference,
            recall_at_100=float(ranking.scores.recall.mean()),
            top_10_overlap=top_k_overlap(ranking.ranks, exact.ranks),
            rank_biased_overlap=rank_biased_overlap(ranking.ranks, exact.ranks),
            cosine=cosine,
            per_query=query_scores,
        )

    def _query_scores(
        self,
        setting: Setting,
        ranking: _Ranking,
        exact: _Ranking,
        full: _Ranking,
        documents: Embeddings | MultiEmbeddings,
    ) -> QueryScores:
        return QueryScores(
            setting=setting,
            measure=self.measure,
            scores=ranking.scores.ndcg,
            reference=exact.scores.ndcg,
            languages=self.evaluation_set.query_languages,
            full_reference=float(full.scores.ndcg.mean()),
            bytes=documents.nbytes / len(documents),
        )


class RetrievalScorer(_RankingScorer):
    """Scores rankings by the cosine of single vectors.

    Truncated vectors are compared with the reference's truncated ones, which measures the loss of weights and codes;
    with `against_full` with its full ones, which measures the loss of truncation, too.
    """

    def __init__(
        self, evaluation_set: RetrievalSet, qrels: QrelsScorer, reference: VectorPair, *, against_full: bool = False
    ) -> None:
        super().__init__(evaluation_set, qrels)
        self.reference = reference
        self._against_full = against_full
        self._exact: dict[int, _Ranking] = {}

    @property
    def full_reference(self) -> ReferenceScore:
        """nDCG@10 and Recall@100 of the reference at full dimensions."""
        scores = self._full().scores
        return ReferenceScore(float(scores.ndcg.mean()), float(scores.recall.mean()))

    def reference_score(self, dimensions: int) -> float:
        """Score of the reference (nDCG@10) with vectors truncated to some dimensions."""
        return float(self._at(dimensions).scores.ndcg.mean())

    def score(self, setting: Setting, left: Embeddings, right: Embeddings) -> SetResult:
        """Score a setting; `left`: query vectors at full dimensions, `right`: truncated documents in its precision."""
        cut = self.reference.truncate(setting.dimensions)
        queries = left.truncate(setting.dimensions)
        cosines = [row_cosines(right.decode(), cut.right.codes)]
        if setting.precision == "float32":
            cosines.append(row_cosines(queries.codes, cut.left.codes))
        ranking = self._scored(search(queries, right, DEPTH).indices)
        exact = self._full() if self._against_full else self._at(setting.dimensions)
        query_scores = self._query_scores(setting, ranking, exact, self._full(), right)
        return self._result(query_scores, ranking, exact, summarise_cosines(np.concatenate(cosines)))

    def _full(self) -> _Ranking:
        return self._at(self.reference.left.dimensions)

    def _at(self, dimensions: int) -> _Ranking:
        if dimensions not in self._exact:
            cut = self.reference.truncate(dimensions)
            self._exact[dimensions] = self._scored(search(cut.left, cut.right, DEPTH).indices)
        return self._exact[dimensions]


class MultiVectorScorer(_RankingScorer):
    """Scores rankings by MaxSim of multi-vectors."""

    def __init__(self, evaluation_set: RetrievalSet, qrels: QrelsScorer, reference: MultiVectorPair) -> None:
        super().__init__(evaluation_set, qrels)
        self.reference = reference
        self._exact: dict[int, _Ranking] = {}

    @property
    def full_reference(self) -> ReferenceScore:
        """nDCG@10 and Recall@100 of the reference at full dimensions."""
        scores = self._full().scores
        return ReferenceScore(float(scores.ndcg.mean()), float(scores.recall.mean()))

    def score(self, setting: Setting, left: MultiEmbeddings, right: MultiEmbeddings) -> SetResult:
        """Score a setting.

        `left`: float32 queries at full dimensions, `right`: truncated documents in its precision and pool factor.
        """
        cut, queries = self.reference.truncate(setting.dimensions), left.truncate(setting.dimensions)
        ranking = self._scored(_best(maxsim(queries, right)))
        cosine = None
        if setting.pool_factor == 1:
            cosines = [token_cosines(right, cut.right)]
            if setting.precision == "float32":
                cosines.append(token_cosines(queries, cut.left))
            cosine = summarise_cosines(np.concatenate(cosines))
        exact = self._at(setting.dimensions)
        query_scores = self._query_scores(setting, ranking, exact, self._full(), right)
        return self._result(query_scores, ranking, exact, cosine)

    def _full(self) -> _Ranking:
        return self._at(self.reference.left.dimensions)

    def _at(self, dimensions: int) -> _Ranking:
        if dimensions not in self._exact:
            cut = self.reference.truncate(dimensions)
            self._exact[dimensions] = self._scored(_best(maxsim(cut.left, cut.right)))
        return self._exact[dimensions]


class PairScorer:
    """Scores cosines of pairs against human scores; `against_full` as for `RetrievalScorer`."""

    measure: Measure = "Spearman"

    def __init__(self, evaluation_set: PairSet, reference: VectorPair, *, against_full: bool = False) -> None:
        self.evaluation_set = evaluation_set
        self.reference = reference
        self._against_full = against_full
        self._human = np.asarray(evaluation_set.scores)
        self._exact: dict[int, _Correlation] = {}

    @property
    def full_reference(self) -> ReferenceScore:
        """Spearman's correlation of the reference at full dimensions."""
        return ReferenceScore(self._at(self.reference.left.dimensions).value, recall_at_100=None)

    def score(self, setting: Setting, left: Embeddings, right: Embeddings) -> SetResult:
        """Score a setting; arguments as for `RetrievalScorer.score`: first texts, then second texts."""
        cut = self.reference.truncate(setting.dimensions)
        exact = self._at(self.reference.left.dimensions if self._against_full else setting.dimensions)
        first = left.truncate(setting.dimensions)
        found = self._correlation(first, right)
        cosines = [row_cosines(right.decode(), cut.right.codes)]
        if setting.precision == "float32":
            cosines.append(row_cosines(first.codes, cut.left.codes))
        return SetResult(
            set=self.evaluation_set.name,
            queries=len(found.parts),
            reference=exact.value,
            score=found.value,
            difference=found.value - exact.value,
            recall_at_100=None,
            top_10_overlap=None,
            rank_biased_overlap=None,
            cosine=summarise_cosines(np.concatenate(cosines)),
            per_query=QueryScores(
                setting=setting,
                measure=self.measure,
                scores=found.parts,
                reference=exact.parts,
                languages=[self.evaluation_set.language] * len(found.parts),
                full_reference=self.full_reference.score,
                bytes=right.nbytes / len(right),
            ),
        )

    def _at(self, dimensions: int) -> _Correlation:
        if dimensions not in self._exact:
            cut = self.reference.truncate(dimensions)
            self._exact[dimensions] = self._correlation(cut.left, cut.right)
        return self._exact[dimensions]

    def _correlation(self, first: Embeddings, second: Embeddings) -> _Correlation:
        scores = (similarity_factors(first) * similarity_factors(second)).sum(1)
        return _Correlation(spearman(self._human, scores), spearman_parts(self._human, scores))


def _best(scores: Float32) -> Ranks:
    """Return the columns of the highest scores of each row, best first, ties by column."""
    return np.stack([smallest(-row, DEPTH) for row in scores])


def token_cosines(vectors: MultiEmbeddings, exact: MultiEmbeddings) -> Float64:
    """Return the cosine of every token's vector with the reference's; one input is decoded at a time."""
    bounds = pairwise(vectors.offsets.tolist())
    decoded = (vectors[index].decode()[0] for index in range(len(vectors)))
    return np.concatenate(
        [row_cosines(values, exact.codes[start:stop]) for values, (start, stop) in zip(decoded, bounds, strict=True)]
    )
