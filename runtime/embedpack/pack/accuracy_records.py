"""Accuracy in the manifest: figures of a variant, measured while it is written and when the pack is finished."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from embedpack.pack.strict import Count, Share, Strict

CheckOutcome = Literal["within budget", "over budget", "allowed", "not judged"]


class Cosines(Strict, frozen=True):
    """Cosines of single vectors with those of a reference: mean, 1st percentile, lowest."""

    mean: float
    p1: float
    min: float


class TokenCosines(Strict, frozen=True):
    """Cosines of token vectors with those of a reference; `tokens` is their number."""

    tokens: Count
    mean: float
    p1: float


class ScoreAgreement(Strict, frozen=True):
    """Scores of documents compared with those of a reference.

    Attributes:
        queries, pairs: number of queries, and of their documents together.
        largest_difference: largest difference of two scores of a document.
        relative_difference: root of the mean square difference, over the standard deviation of the reference's scores.
        kendall: Kendall's tau-b of the orders of the documents of a query, mean over the queries.
    """

    queries: Count
    pairs: Count
    largest_difference: float
    relative_difference: float
    kendall: float


class Headroom(Strict, frozen=True):
    """Range of the float16 products of a graph on the calibration texts.

    Attributes:
        products: number of products.
        largest: largest magnitude of their inputs and outputs; of int4 weights also of partial sums of the terms.
        value: the input or output that has it.
        factor: largest number of float16, 65504, over that magnitude.
    """

    products: Count
    largest: float
    value: str
    factor: float


class Accuracy(Strict, frozen=True, omit_defaults=True):
    """Vectors or scores of a variant compared with those of `reference`, while it was written.

    `inputs` is the number of calibration texts and images, or of pairs. `single`, `multi` and `score` are null if the
    pack has no such head. `headroom` is that of variants for GPUs.
    """

    reference: str
    inputs: Count
    single: Cosines | None
    multi: TokenCosines | None
    score: ScoreAgreement | None = None
    headroom: Headroom | None = None


class ImageAccuracy(Strict, frozen=True):
    """Vectors of images compared with those of a reference; `images` is their number, the rest as of `Accuracy`."""

    images: Count
    single: Cosines | None
    multi: TokenCosines | None


class Check(Strict, frozen=True, omit_defaults=True):
    """Accuracy check of a task: vectors of the finished pack compared with those of a reference.

    Attributes:
        reference: "torch": the checkpoint with unmerged adapters; "fp32 graph": the exporter's unquantized graph.
        texts: number of calibration texts, each with its prompt; of scores, number of queries.
        single, multi: cosines of single vectors and of token vectors; null: the pack has no such head.
        ranking_loss: loss of self-retrieval, or of rankings by scores, in points of nDCG@10; null: too few texts.
        ranking_loss_95: its 95 % interval.
        top_10_overlap: mean share of the reference's ten nearest texts among those of the pack.
        budget: largest allowed loss in points.
        outcome: "allowed": over budget, but accepted with `--allow-loss`.
        images: cosines of images; null: the pack reads none, or they were not compared.
        score: agreement of scores; null: the pack has vectors.
    """

    reference: str
    texts: Count
    single: Cosines | None
    multi: TokenCosines | None
    ranking_loss: float | None
    ranking_loss_95: tuple[float, float] | None
    top_10_overlap: Share | None
    budget: Annotated[float, msgspec.Meta(ge=0)]
    outcome: CheckOutcome
    images: ImageAccuracy | None = None
    score: ScoreAgreement | None = None


class Report(Strict, frozen=True):
    """Files of the accuracy check: its figures in JSON, and an HTML page."""

    figures: str
    page: str
