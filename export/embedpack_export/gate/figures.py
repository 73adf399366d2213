"""report/accuracy.json: every figure of the comparison at the end of an export."""

from __future__ import annotations

from typing import Annotated

import msgspec

from embedpack.pack.manifest import AdapterMode, Check, Sha256, Strict, WeightsFormat
from embedpack.vectors.codes import Precision

FIGURES_FILE = "report/accuracy.json"
PAGE_FILE = "report/index.html"
FORMAT = "embedpack-accuracy-1"


class CodeFigures(Strict, frozen=True):
    """Full vectors as queries, truncated codes as documents, both of the variant, against the reference's ranking.

    Attributes:
        truncate_dim: dimensions left of queries and documents.
        precision: of the documents; queries are float32.
        bytes: of one document's code.
        ranking_loss: points of nDCG@10, truncation included.
        top_10_overlap: mean share of the reference's ten nearest texts that are found.
    """

    truncate_dim: int
    precision: Precision
    bytes: int
    ranking_loss: float
    top_10_overlap: float


class TaskFigures(Strict, frozen=True):
    """A variant on a task; `codes` are empty where there are too few texts to rank."""

    check: Check
    codes: tuple[CodeFigures, ...]


class VariantFigures(Strict, frozen=True):
    """A variant: its bytes as `Manifest.variant_bytes` counts them, and its figures by task."""

    weights: WeightsFormat
    adapters: AdapterMode
    bytes: Annotated[int, msgspec.Meta(ge=1)]
    tasks: dict[str, TaskFigures]


class Figures(Strict, frozen=True):
    """The file.

    Attributes:
        format: of the file.
        model: name of the model.
        fingerprint: of its weights, adapters and prompts.
        reference: what the variants were compared with.
        texts: calibration texts that were compared.
        calibration: sha256 of the file they are from.
        seed: of the draws behind the intervals.
        max_loss, allow_loss: as the export was asked; null: the budget of the weights format.
        tools: versions of what computed the vectors.
        variants: by name.
    """

    format: str
    model: str
    fingerprint: Sha256
    reference: str
    texts: int
    calibration: Sha256
    seed: int
    max_loss: float | None
    allow_loss: float | None
    tools: dict[str, str]
    variants: dict[str, VariantFigures]
