"""Results of an evaluation of a reranker, as they are written to JSON: scores in points (100 is perfect)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from embedpack_export.metrics.non_inferiority import NonInferiority
from embedpack_export.planning.settings import ReferenceKind


@dataclass(frozen=True, kw_only=True)
class Gain:
    """nDCG@10 of an order of the candidates, and its difference from the order of the first stage.

    Attributes:
        ndcg: mean over the queries, in points.
        difference: mean difference, in points.
        low, high: bounds of its 95 % interval.
    """

    ndcg: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """Scores of one variant compared with those of the reference.

    Attributes:
        variant: name of the variant.
        gain: its order compared with that of the first stage.
        test: non-inferiority test of its nDCG@10 minus that of the reference.
        kendall: Kendall's tau of both orders of the candidates, mean over the queries.
        kendall_p1: its 1 % quantile.
        largest_difference: largest difference of two scores.
    """

    variant: str
    gain: Gain
    test: NonInferiority
    kendall: float
    kendall_p1: float
    largest_difference: float


@dataclass(frozen=True, kw_only=True)
class RerankedSet:
    """Results of one set.

    Attributes:
        name: path of its folder below the data folder.
        queries, documents: their numbers.
        first_stage: nDCG@10 in the order of the first stage, in points.
        recall: relevant documents among the candidates, in points; no order can find others.
        reference: the reference's order compared with that of the first stage.
        variants: results of the variants.
    """

    name: str
    queries: int
    documents: int
    first_stage: float
    recall: float
    reference: Gain
    variants: Sequence[VariantResult]


class RerankingReport(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Results of `bench accuracy` for a reranker."""

    model: str
    fingerprint: str  # fingerprint of the pack's source
    first_stage: str  # name of the embedder
    depth: int  # number of candidates of a query
    reference: ReferenceKind
    margin: float  # loss in points that is allowed
    limit: int | None  # number of queries of each set; None: all
    seed: int
    passed: bool  # every variant is non-inferior on the mean of the sets
    tests: dict[str, NonInferiority]  # test of each variant on the mean of the sets
    sets: Sequence[RerankedSet]
