"""report/accuracy.json: all figures of the accuracy check of an export."""

from __future__ import annotations

from typing import Annotated

import msgspec

from embedpack.pack.accuracy_records import Check
from embedpack.pack.strict import AdapterMode, Sha256, Strict, WeightsFormat
from embedpack.vectors.codes import Precision

FIGURES_FILE = "report/accuracy.json"
PAGE_FILE = "report/index.html"
FORMAT = "embedpack-accuracy-3"


class CodeAccuracy(Strict, frozen=True):
    """Coded, truncated documents with float32 queries, both of a variant, compared with the reference's ranking."""

    truncate_dim: int  # dimensions of queries and documents
    precision: Precision  # precision of the documents
    bytes: int  # bytes of one document's code
    ranking_loss: float  # points of nDCG@10, truncation included
    top_10_overlap: float  # mean share of the reference's first ten texts that are among the first ten


class TaskAccuracy(Strict, frozen=True):
    """A variant on a task; `codes` is empty if there are too few texts to rank."""

    check: Check
    codes: tuple[CodeAccuracy, ...]


class VariantAccuracy(Strict, frozen=True):
    """A variant: bytes of its graph, weights and adapters, and its figures by task."""

    weights: WeightsFormat
    adapters: AdapterMode
    bytes: Annotated[int, msgspec.Meta(ge=1)]
    tasks: dict[str, TaskAccuracy]


class AccuracyFigures(Strict, frozen=True):
    """Content of the file."""

    format: str  # name and version of the format of the file
    model: str
    fingerprint: Sha256  # fingerprint of its weights, adapters and prompts
    reference: str  # kind of the reference
    notes: tuple[str, ...]  # sentences about the reference, for the page
    texts: int  # number of calibration texts that were compared
    calibration: Sha256
    seed: int  # seed of the bootstrap
    # Settings of the export; null: the budget of the weights format.
    max_loss: float | None
    allow_loss: float | None
    tools: dict[str, str]  # versions of the packages that computed the vectors
    variants: dict[str, VariantAccuracy]
