"""One set, asked again and again: how well does a setting's answer fit the judgements, and the reference's answer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from embedpack import Embeddings, MultiEmbeddings, maxsim, search
from embedpack.scoring.top_k import smallest
from embedpack.vectors.codes import Float32
from embedpack_export.evaluation.results import Measure, Setting
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.sets.data import PairSet, RetrievalSet
from embedpack_export.metrics.cosines import CosineSummary, row_cosines, summarise_cosines
from embedpack_export.metrics.rankings import (
    DEPTH,
    Float64,
    Ranks,
    rank_biased_overlap,
    spearman,
    spearman_parts,
    top_k_overlap,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What a setting gave on one set; fields that are not here are those of `findings.SetFigures`.

    Attributes:
        differences: to the reference in points, of each query or pair, [queries].
        languages: of each query or pair.
        full: the reference's figure at full dimensions.
        bytes: mean of a document.
    """

    setting: Setting
    set: str
    measure: Measure
    differences: Float64
    languages: Sequence[str]
    reference: float
    found: float
    full: float
    bytes: float
    recall_at_100: float | None = None
    top_10_overlap: float | None = None
    rank_biased_overlap: float | None = None
    cosine: CosineSummary | None = None


@dataclass(frozen=True, eq=False)
class Sides:
    """Single vectors of both sides of a set: queries and documents, or first and second texts."""

    left: Embeddings
    right: Embeddings

    def cut(self, dimensions: int) -> Sides:
        """Truncated."""
        return Sides(self.left.truncate(dimensions), self.right.truncate(dimensions))


@dataclass(frozen=True, eq=False)
class MultiSides:
    """Multi-vectors of queries and documents."""

    left: MultiEmbeddings
    right: MultiEmbeddings


@dataclass(frozen=True, eq=False)
class _Ranking:
    """The reference's ranking, and what it is worth for each query."""

    ranks: Ranks
    ndcg: Float64
    recall: Float64


class _Trial:
    """What rankings by cosine and by MaxSim share."""

    measure: Measure = "nDCG@10"

    def __init__(self, judged: RetrievalSet, scorer: QrelsScorer) -> None:
        self.judged = judged
        self._scorer = scorer

    def _worth(self, ranks: Ranks) -> _Ranking:
        return _Ranking(ranks, *self._scorer.scores(ranks))

    def _answer(
        self, setting: Setting, found: _Ranking, exact: _Ranking, full: float, documents: Embeddings | MultiEmbeddings
    ) -> Answer:
        """An answer that lacks its cosines."""
        return Answer(
            setting=setting,
            set=self.judged.name,
            measure=self.measure,
            differences=found.ndcg - exact.ndcg,
            languages=self.judged.query_languages,
            reference=float(exact.ndcg.mean()),
            found=float(found.ndcg.mean()),
            full=full,
            bytes=documents.nbytes / len(documents),
            recall_at_100=float(found.recall.mean()),
            top_10_overlap=top_k_overlap(found.ranks, exact.ranks),
            rank_biased_overlap=rank_biased_overlap(found.ranks, exact.ranks),
        )


class RetrievalTrial(_Trial):
    """Rankings by the cosine of single vectors.

    Truncated vectors are compared with the reference's truncated ones, which shows what weights and codes lose; with
    `against_full` with its whole ones, which shows what truncation loses, too.
    """

    def __init__(
        self, judged: RetrievalSet, scorer: QrelsScorer, reference: Sides, *, against_full: bool = False
    ) -> None:
        super().__init__(judged, scorer)
        self.reference = reference
        self._against_full = against_full
        self._exact: dict[int, _Ranking] = {}

    @property
    def whole(self) -> tuple[float, float]:
        """nDCG@10 and Recall@100 of the reference at full dimensions."""
        exact = self._at(self.reference.left.dimensions)
        return float(exact.ndcg.mean()), float(exact.recall.mean())

    def answer(self, setting: Setting, left: Embeddings, right: Embeddings) -> Answer:
        """Judge float32 queries, not yet truncated, against documents that are what the setting says."""
        cut = self.reference.cut(setting.dimensions)
        queries = left.truncate(setting.dimensions)
        sides = [(right.decode(), cut.right.codes)]
        if setting.precision == "float32":
            sides.append((queries.codes, cut.left.codes))
        ranking = self._worth(search(queries, right, DEPTH).indices)
        exact = self._at(self.reference.left.dimensions if self._against_full else setting.dimensions)
        answer = self._answer(setting, ranking, exact, self.whole[0], right)
        return replace(answer, cosine=summarise_cosines(np.concatenate([row_cosines(*side) for side in sides])))

    def _at(self, dimensions: int) -> _Ranking:
        if dimensions not in self._exact:
            cut = self.reference.cut(dimensions)
            self._exact[dimensions] = self._worth(search(cut.left, cut.right, DEPTH).indices)
        return self._exact[dimensions]


class MultiTrial(_Trial):
    """Rankings by MaxSim of multi-vectors."""

    def __init__(self, judged: RetrievalSet, scorer: QrelsScorer, reference: MultiSides) -> None:
        super().__init__(judged, scorer)
        self.reference = reference
        self._exact = self._worth(_best(maxsim(reference.left, reference.right)))

    def answer(self, setting: Setting, left: MultiEmbeddings, right: MultiEmbeddings) -> Answer:
        """Judge float32 queries against documents that are what the setting says."""
        ranking = self._worth(_best(maxsim(left, right)))
        answer = self._answer(setting, ranking, self._exact, float(self._exact.ndcg.mean()), right)
        if setting.pool_factor > 1:
            return answer
        sides = [(right, self.reference.right)]
        sides += [(left, self.reference.left)] if setting.precision == "float32" else []
        return replace(answer, cosine=summarise_cosines(np.concatenate([_token_cosines(*side) for side in sides])))


class PairTrial:
    """Cosines of pairs beside human scores; `against_full` as of `RetrievalTrial`."""

    measure: Measure = "Spearman"

    def __init__(self, judged: PairSet, reference: Sides, *, against_full: bool = False) -> None:
        self.judged = judged
        self.reference = reference
        self._against_full = against_full
        self._human = np.asarray(judged.scores)
        self._exact: dict[int, tuple[float, Float64]] = {}

    @property
    def whole(self) -> tuple[float, None]:
        """Spearman's correlation of the reference at full dimensions."""
        return self._at(self.reference.left.dimensions)[0], None

    def answer(self, setting: Setting, left: Embeddings, right: Embeddings) -> Answer:
        """Judge first texts, float32 and not yet truncated, with second ones that are what the setting says."""
        cut = self.reference.cut(setting.dimensions)
        reference, parts = self._at(self.reference.left.dimensions if self._against_full else setting.dimensions)
        first, second = left.truncate(setting.dimensions).codes, right.decode()
        found, found_parts = self._judged(first, second)
        sides = [(second, cut.right.codes)]
        if setting.precision == "float32":
            sides.append((first, cut.left.codes))
        return Answer(
            setting=setting,
            set=self.judged.name,
            measure=self.measure,
            differences=found_parts - parts,
            languages=[self.judged.language] * len(parts),
            reference=reference,
            found=found,
            full=self.whole[0],
            bytes=right.nbytes / len(right),
            cosine=summarise_cosines(np.concatenate([row_cosines(*side) for side in sides])),
        )

    def _at(self, dimensions: int) -> tuple[float, Float64]:
        if dimensions not in self._exact:
            cut = self.reference.cut(dimensions)
            self._exact[dimensions] = self._judged(cut.left.codes, cut.right.codes)
        return self._exact[dimensions]

    def _judged(self, first: Float32, second: Float32) -> tuple[float, Float64]:
        scores = (first * second).sum(1)
        return spearman(self._human, scores), spearman_parts(self._human, scores)


def _best(scores: Float32) -> Ranks:
    """Columns of the highest scores of each row, best first; of equal ones the first."""
    return np.stack([smallest(-row, DEPTH) for row in scores])


def _token_cosines(found: MultiEmbeddings, exact: MultiEmbeddings) -> Float64:
    """Cosine of every token's vector with the reference's, input by input: codes are decoded a part at a time."""
    bounds = pairwise(found.offsets.tolist())
    decoded = (found[index].decode()[0] for index in range(len(found)))
    return np.concatenate(
        [row_cosines(values, exact.codes[start:stop]) for values, (start, stop) in zip(decoded, bounds, strict=True)]
    )
