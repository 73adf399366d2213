"""Accuracy in the manifest: figures of a variant, measured while it is written and when the pack is finished."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from embedpack.pack.strict import Count, Share, Strict

CheckOutcome = Literal["within budget", "over budget", "allowed", "not judged"]


class TokenAccuracy(Strict, frozen=True):
    """Cosines of token vectors with those of the reference; `tokens` is their number."""

    tokens: Count
    cosine_mean: float
    cosine_p1: float


class ImageAccuracy(Strict, frozen=True):
    """Cosines of vectors of images with those of the reference; `images` is their number.

    `tokens` has those of their token vectors, null if the pack has no multi-vectors.
    """

    images: Count
    cosine_mean: float
    cosine_min: float
    tokens: TokenAccuracy | None


class Accuracy(Strict, frozen=True):
    """Cosines of a variant's vectors with those of `reference` over calibration inputs: mean, 1st percentile, lowest.

    `texts` is the number of texts and images; `tokens` is null if the pack has no multi-vectors.
    """

    reference: str
    texts: Count
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    tokens: TokenAccuracy | None


class Check(Strict, frozen=True, omit_defaults=True):
    """Accuracy check of a task: vectors of the finished pack compared with those of a reference.

    Attributes:
        reference: "torch": the checkpoint with unmerged adapters; "fp32 graph": the exporter's unquantized graph.
        texts: number of calibration texts, each with its prompt.
        cosine_mean, cosine_p1, cosine_min: mean, 1st percentile and minimum of the cosines with the reference.
        ranking_loss: loss of self-retrieval in points of nDCG@10; null: too few texts.
        ranking_loss_95: its 95 % interval.
        top_10_overlap: mean share of the reference's ten nearest texts among those of the pack.
        budget: largest allowed loss in points.
        outcome: "allowed": over budget, but accepted with `--allow-loss`.
        tokens: cosines of token vectors; null: the pack has no multi-vectors.
        images: cosines of images; null: the pack reads none, or they were not compared.
    """

    reference: str
    texts: Count
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    ranking_loss: float | None
    ranking_loss_95: tuple[float, float] | None
    top_10_overlap: Share | None
    budget: Annotated[float, msgspec.Meta(ge=0)]
    outcome: CheckOutcome
    tokens: TokenAccuracy | None
    images: ImageAccuracy | None = None


class Report(Strict, frozen=True):
    """Files of the accuracy check: its figures in JSON, and an HTML page."""

    figures: str
    page: str
