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


class Accuracy(Strict, frozen=True):
    """Vectors of a variant compared with those of `reference`, while it was written.

    `inputs` is the number of calibration texts and images. `single` and `multi` are null if the pack has no such head.
    """

    reference: str
    inputs: Count
    single: Cosines | None
    multi: TokenCosines | None


class ImageAccuracy(Strict, frozen=True):
    """Vectors of images compared with those of a reference; `images` is their number, the rest as of `Accuracy`."""

    images: Count
    single: Cosines | None
    multi: TokenCosines | None


class Check(Strict, frozen=True, omit_defaults=True):
    """Accuracy check of a task: vectors of the finished pack compared with those of a reference.

    Attributes:
        reference: "torch": the checkpoint with unmerged adapters; "fp32 graph": the exporter's unquantized graph.
        texts: number of calibration texts, each with its prompt.
        single, multi: cosines of single vectors and of token vectors; null: the pack has no such head.
        ranking_loss: loss of self-retrieval in points of nDCG@10; null: too few texts.
        ranking_loss_95: its 95 % interval.
        top_10_overlap: mean share of the reference's ten nearest texts among those of the pack.
        budget: largest allowed loss in points.
        outcome: "allowed": over budget, but accepted with `--allow-loss`.
        images: cosines of images; null: the pack reads none, or they were not compared.
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


class Report(Strict, frozen=True):
    """Files of the accuracy check: its figures in JSON, and an HTML page."""

    figures: str
    page: str
