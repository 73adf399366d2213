"""Calibration texts, calibration images and golden inputs, collated for a model's graphs in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedpack.engine.golden import GoldenCase
from embedpack.engine.golden_image import golden_image
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.items import Input
from embedpack.inputs.processor import ModelInput
from embedpack.inputs.prompt_rules import PromptOrPrefix, prompt_order
from embedpack.inputs.vision_layout import token_grid, vision_feeds
from embedpack.pack.graph_io import ATTENTION_MASK, IMAGE_EMBEDS
from embedpack.pack.input_recipes import QwenImage
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.stages.calibration_images import calibration_images
from embedpack_export.stages.staged_run import Feeds

# Tokens of a batch: each batch costs a pass over the statistics, each token the memory of its activations.
TOKEN_BUDGET = 1024
# Tokens times parameters of one pass, within bounds of tokens: a large model is calibrated on fewer texts.
MAX_WORK = 4e12
MIN_TOKENS, MAX_TOKENS = 3_000, 25_000


@dataclass(frozen=True)
class CollatedBatch:
    """Model inputs that run together, collated; an image runs alone."""

    items: tuple[ModelInput, ...]
    feeds: Feeds


@dataclass(frozen=True)
class TaskInputs:
    """Inputs that pass through a model while it is written."""

    calibration: Sequence[CollatedBatch]
    golden: Sequence[CollatedBatch]  # golden inputs, each alone
    # Images whose vectors the vision graph gives, those of the calibration first, then the golden one.
    images: Sequence[ModelInput] = ()

    @property
    def items(self) -> list[ModelInput]:
        """Calibration inputs in the order of their vectors."""
        return [item for batch in self.calibration for item in batch.items] + list(self.images[:-1])

    @property
    def lengths(self) -> list[npt.NDArray[np.int64]]:
        """Number of tokens of each input of each batch, in the order of `feeds`."""
        batches = (*self.calibration, *self.golden)
        return [np.array([len(item.ids) for item in batch.items], np.int64) for batch in batches]

    def feeds(self, embeds: Sequence[Float32]) -> list[Feeds]:
        """Inputs of the graph, those of the calibration first; `embeds` are the vectors of the images in this order."""
        vectors = iter(embeds)
        return [
            batch.feeds | ({IMAGE_EMBEDS: next(vectors)} if batch.items[0].image is not None else {})
            for batch in (*self.calibration, *self.golden)
        ]

    def mean_vector(self, hidden: Iterable[Float32], pooling: Pooling | Literal["marks"]) -> Float64:
        """Mean over the calibration inputs of the mean over their tokens, for hidden states [batch, sequence, size].

        Those of the golden inputs may follow. The tokens are the one that is pooled for `pooling` cls and last, the
        marks of lists for "marks", else all.
        """
        means = []
        for batch, values in zip(self.calibration, hidden, strict=False):
            mask = _pooled_tokens(batch, pooling)[..., None].astype(np.float64)
            means.append((values * mask).sum(axis=1) / mask.sum(axis=1))
        return np.asarray(np.concatenate(means).mean(axis=0))

    def multi_vectors(self, values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Rows of the multi-vectors of all calibration inputs among values [batch, sequence, ...] of each batch."""
        items = (item for batch in self.calibration for item in batch.items)
        rows = (of_item for of_batch in values for of_item in of_batch)
        return np.concatenate([item.of_multi_vector(of_item) for item, of_item in zip(items, rows, strict=True)])


def _pooled_tokens(batch: CollatedBatch, pooling: Pooling | Literal["marks"]) -> npt.NDArray[Any]:
    """Mask [batch, sequence] of the tokens that are pooled, or of marks, else of all."""
    mask = batch.feeds[ATTENTION_MASK]
    if pooling == "marks":
        marked = np.zeros_like(mask)
        for row, item in zip(marked, batch.items, strict=True):
            row[item.marks] = 1
        return marked
    if pooling not in ("cls", "last"):
        return mask
    place = 0 if pooling == "cls" else mask.sum(axis=1, keepdims=True) - 1
    return np.asarray(np.arange(mask.shape[1]) == place) & (mask > 0)


def calibration_and_golden_images(plan: ExportPlan) -> list[ModelInput]:
    """Calibration images of a model that reads images, then the golden image."""
    if plan.model.vision is None:
        return []
    return _processed(plan, [*calibration_images(plan.seed), golden_image()], "")


def has_image_vectors(plan: ExportPlan) -> bool:
    """True if the vision graph gives the vectors of images; else they are inputs of the text graph."""
    return plan.model.vision is not None and plan.model.vision.gives == "vectors"


def image_feeds(plan: ExportPlan) -> list[Feeds]:
    """Inputs of the vision graph, one image each."""
    assert plan.model.vision is not None
    return [
        vision_feeds(item.image, plan.model.vision.image)
        for item in calibration_and_golden_images(plan)
        if item.image is not None
    ]


def text_inputs(plan: ExportPlan, task: TaskPlan, cases: Sequence[GoldenCase]) -> TaskInputs:
    """Collate texts with the prompts of a task, and images, in batches; each golden case alone.

    Images of a vision graph that gives their vectors are in none of the batches.
    """
    by_prompt = plan.calibration.by_prompt(task.prompt)
    groups = [(prompt, by_prompt[prompt]) for prompt in sorted(by_prompt, key=prompt_order)]
    texts = _bounded(plan, [item for prompt, group in groups for item in _processed(plan, group, prompt)])
    lengths = [len(item.ids) for item in texts]
    batches = [[texts[row] for row in rows] for rows in token_budget_batches(lengths, TOKEN_BUDGET)]
    images = calibration_and_golden_images(plan)
    of_vision_graph = images if has_image_vectors(plan) else []
    pictures = [] if of_vision_graph else [collated(plan, [item]) for item in images]
    golden = [
        pictures[-1] if case.text is None else collated(plan, _processed(plan, [case.text], case.prompt))
        for case in cases
        if case.text is not None or pictures
    ]
    calibration = [collated(plan, batch) for batch in batches]
    return TaskInputs([*calibration, *pictures[:-1]], golden, of_vision_graph)


def _processed(plan: ExportPlan, inputs: Sequence[Input], prompt: PromptOrPrefix) -> list[ModelInput]:
    return plan.processor.process(plan.processor.items(inputs), prompt)


def collated(plan: ExportPlan, items: Sequence[ModelInput]) -> CollatedBatch:
    """A batch of texts, or of one image, whose zeros `TaskInputs.feeds` replaces by its vectors."""
    spec, embeds = plan.processor.image, []
    if items[0].image is not None and isinstance(spec, QwenImage):
        rows, columns = token_grid(items[0].image, spec)
        embeds = [np.zeros((rows * columns, plan.model.hidden), np.float32)]
    return CollatedBatch(tuple(items), plan.processor.collate(items, embeds))


def calibration_tokens(plan: ExportPlan) -> float:
    """Largest number of tokens of calibration inputs for a model of this size."""
    return min(MAX_TOKENS, max(MIN_TOKENS, MAX_WORK / max(1, plan.parameters)))


def _bounded(plan: ExportPlan, texts: Sequence[ModelInput]) -> list[ModelInput]:
    """Texts, evenly spaced, whose work for a model of this size is at most `MAX_WORK`."""
    limit = calibration_tokens(plan)
    tokens = sum(len(item.ids) for item in texts)
    count = min(len(texts), max(1, int(len(texts) * limit / tokens)))
    return [texts[row] for row in np.linspace(0, len(texts) - 1, count).astype(int)]
