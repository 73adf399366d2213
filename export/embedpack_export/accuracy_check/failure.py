"""Message of a variant that fails its accuracy check, with the cause if it is found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedpack.pack.accuracy_records import Check
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.budget import is_damaged
from embedpack_export.accuracy_check.diagnosis import MAX_MEAN_DISTANCE, find_cause, reads_differently
from embedpack_export.accuracy_check.expected import Expected
from embedpack_export.accuracy_check.image_check import ExpectedImages, images_read_differently
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.choice import ChosenReference


@dataclass(frozen=True)
class Failure:
    """Check of a task of a variant, for its message."""

    plan: ExportPlan
    references: ChosenReference
    task: str
    check: Check
    weights: WeightsFormat

    def message(self, expected: Expected, vectors: Float32) -> str | None:
        """Message for a loss over the budget, or for vectors of another model, however small their loss is."""
        check, weights = self.check, self.weights
        over = check.outcome == "over budget"
        if not over and 1 - _mean_cosine(check) <= MAX_MEAN_DISTANCE[weights]:
            return None
        if reads_differently(self.plan, self.references, self.task, expected.texts):
            return (
                f"{_described(check)}. Before any rounding, the exporter's own float32 vectors already differ "
                "from torch's: it reads the model in another way than transformers does (a key of config.json, an "
                "adapter), so a budget does not help; report it"
            )
        cause = find_cause(self.plan, self.references.main, self.task, expected.texts, vectors)
        if cause is not None:
            return f"{cause} ({_described(check)}); export again, report it if it recurs"
        if not over:
            return None
        if expected.images is not None and is_damaged(weights, None, check.images):
            return f"{self._of_images(expected.images)} ({_described(check)})"
        if weights == "fp32":
            return (
                f"{_described(check)}; the budget is {check.budget:g}. No other adapter, prompt or pooling "
                "explains it, and rounding to fp32 costs no points: the weights are damaged, or the graph is wrong; "
                "export again, report it if it recurs"
            )
        return (
            f"{_described(check)}; the budget is {check.budget:g}. No other adapter, prompt or pooling "
            f"explains it, so the cause is rounding to {weights}, or damaged weights: "
            "leave the format out, calibrate on texts like yours (--calibrate), or accept the loss with --allow-loss "
            f"{math.ceil(100 * (check.ranking_loss or 0)) / 100:g}"
        )

    def _of_images(self, images: ExpectedImages) -> str:
        """Cause of vectors of images that are far from the reference's."""
        if images_read_differently(self.references, self.task, images):
            return (
                "before any rounding, the exporter's own float32 vectors of images already differ from torch's: it "
                "reads pixels or the vision tower in another way than transformers does, so a budget does not help; "
                "report it"
            )
        return (
            f"vectors of images are too far from the reference's for rounding to {self.weights}: the vision "
            "graph or its weights are damaged; export again, report it if it recurs"
        )


def _mean_cosine(check: Check) -> float:
    """Mean cosine of single vectors, or of the tokens of a model that has none."""
    cosines = check.single or check.multi
    assert cosines is not None
    return cosines.mean


def _described(check: Check) -> str:
    """Loss and cosines as a sentence."""
    single, multi, images = check.single, check.multi, check.images
    lowest = "" if single is None else f", lowest {single.min:.4f}"
    cosines = f"cosine to {check.reference} {_mean_cosine(check):.4f}{lowest}, {check.texts} texts"
    if single is not None and multi is not None:
        cosines += f"; of multi-vectors {multi.mean:.4f}"
    if images is not None and images.single is not None:
        cosines += f"; of {images.images} images {images.single.mean:.4f}"
    if check.ranking_loss is None or check.ranking_loss_95 is None or check.top_10_overlap is None:
        return cosines
    low, high = check.ranking_loss_95
    return (
        f"it loses {check.ranking_loss:.2f} points of nDCG@10 (95 %: {low:.2f} to {high:.2f}; "
        f"{100 * check.top_10_overlap:.1f} % of the top 10 kept; {cosines})"
    )
