"""Calibration texts and images as the inputs of a model's graphs, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.batching import token_budget_batches
from embedpack.preparation import Prepared
from embedpack.vision_layout import vision_feeds
from embedpack_export.calibration import CalibrationText
from embedpack_export.calibration_images import calibration_images
from embedpack_export.lora import Float32
from embedpack_export.observe import Feeds
from embedpack_export.plan import ExportPlan
from embedpack_export.tasks import TaskPlan

# Tokens of a batch: each batch costs a pass over the statistics, each token the memory of its activations.
TOKEN_BUDGET = 1024
# Products that one pass over the texts may take: large models look at fewer texts. 240 texts have some 20,000 tokens.
WORK = 4e12
FEWEST = 64


@dataclass(frozen=True)
class Batch:
    """Prepared items that run together, with their inputs."""

    items: tuple[Prepared, ...]
    feeds: Feeds


def prepared_images(plan: ExportPlan) -> list[Prepared]:
    """The calibration images of a model that reads images."""
    if plan.model.vision is None:
        return []
    return plan.preparation.prepare(calibration_images(plan.seed), "")


def image_feeds(plan: ExportPlan, images: Sequence[Prepared]) -> list[Feeds]:
    """Inputs of the vision graph, one image each."""
    assert plan.model.vision is not None
    return [vision_feeds(item.image, plan.model.vision.image) for item in images if item.image is not None]


def text_batches(
    plan: ExportPlan, task: TaskPlan, images: Sequence[Prepared], embeds: Sequence[Float32]
) -> list[Batch]:
    """Texts under the prompts of a task, and images with their vectors, in batches."""
    items = [item for prompt, texts in _by_prompt(plan, task) for item in plan.preparation.prepare(texts, prompt)]
    batches = [
        [items[row] for row in rows] for rows in token_budget_batches([len(item.ids) for item in items], TOKEN_BUDGET)
    ]
    found = [Batch(tuple(batch), plan.preparation.feeds(batch, [])) for batch in batches]
    found += [
        Batch((item,), plan.preparation.feeds([item], [vectors])) for item, vectors in zip(images, embeds, strict=True)
    ]
    return found


def with_embeds(batches: Sequence[Batch], embeds: Sequence[Float32]) -> list[Feeds]:
    """The inputs of all batches with other vectors of the images."""
    left = iter(embeds)
    return [
        batch.feeds | ({"image_embeds": next(left)} if batch.items[0].image is not None else {}) for batch in batches
    ]


def real_tokens(batch: Batch, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows [n, ...] of the real tokens of values [batch, sequence, ...]."""
    return values[batch.feeds["attention_mask"].astype(bool)]


def _by_prompt(plan: ExportPlan, task: TaskPlan) -> list[tuple[str, list[str]]]:
    """The texts under the prompt that each of them gets."""
    wanted = int(max(FEWEST, WORK / 80 / max(1, plan.parameters)))
    texts: Sequence[CalibrationText] = plan.calibration.texts
    if wanted < len(texts):
        chosen = np.linspace(0, len(texts) - 1, wanted).astype(int)
        texts = [texts[index] for index in chosen]
    subset = replace(plan.calibration, texts=tuple(texts))
    return sorted(subset.by_prompt(task.prompts, task.default_prompt_name).items())
