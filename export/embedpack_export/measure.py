"""How close a variant comes to the same weights in float32, on the calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.pack import Accuracy, TokenAccuracy
from embedpack_export.build import Scales
from embedpack_export.calibration import REFERENCE_GRAPH, int8_scale
from embedpack_export.calibration_inputs import Batch, image_feeds, prepared_images, real_tokens, with_embeds
from embedpack_export.draft import VariantGraphs
from embedpack_export.graph.heads import SENTENCE, TOKENS
from embedpack_export.lora import Float32
from embedpack_export.plan import ExportPlan

Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Vectors of the calibration inputs in float32.

    Attributes:
        batches: the inputs.
        vectors: single vectors, [items, dimensions].
        tokens: those of all real tokens, [tokens, dimensions]; None: there are none.
    """

    batches: Sequence[Batch]
    vectors: Float32
    tokens: Float32 | None


@dataclass(frozen=True)
class Cosines:
    """Cosines of a variant's vectors with those of the reference, of single vectors and of tokens."""

    vectors: Float64
    tokens: Float64 | None


def cosines(plan: ExportPlan, graphs: VariantGraphs, reference: Reference, task: str | None = None) -> Cosines:
    """Run the calibration inputs through a variant, with the adapter of a task if it is switchable."""
    embeds: list[Float32] = []
    if graphs.vision is not None:
        images = image_feeds(plan, prepared_images(plan))
        embeds = [graphs.vision.session.run(["image_embeds"], feeds)[0] for feeds in images]
    outputs = [SENTENCE] if reference.tokens is None else [SENTENCE, TOKENS]
    adapter = None if task is None else graphs.adapters[task]
    vectors, tokens = [], []
    for batch, feeds in zip(reference.batches, with_embeds(reference.batches, embeds), strict=True):
        found = graphs.text.session.run(outputs, feeds, adapter)
        vectors.append(found[0])
        tokens += [real_tokens(batch, item) for item in found[1:]]
    exact = None if reference.tokens is None else _cosines(reference.tokens, np.concatenate(tokens))
    return Cosines(_cosines(reference.vectors, np.concatenate(vectors)), exact)


def accuracy(found: Sequence[Cosines]) -> Accuracy:
    """Figures of the manifest, over one or several tasks."""
    vectors = np.concatenate([item.vectors for item in found])
    tokens = [item.tokens for item in found if item.tokens is not None]
    return Accuracy(
        reference=REFERENCE_GRAPH,
        texts=len(vectors),
        cosine_mean=_rounded(vectors.mean()),
        cosine_p1=_rounded(np.quantile(vectors, 0.01)),
        cosine_min=_rounded(vectors.min()),
        tokens=_token_accuracy(np.concatenate(tokens)) if tokens else None,
    )


def int8_scales(references: Sequence[Reference]) -> Scales:
    """Steps of the int8 codes that fit the vectors of all tasks."""
    tokens = [item.tokens for item in references if item.tokens is not None]
    return Scales(
        max(int8_scale(item.vectors) for item in references), max(map(int8_scale, tokens)) if tokens else None
    )


def _token_accuracy(tokens: Float64) -> TokenAccuracy:
    return TokenAccuracy(
        tokens=len(tokens), cosine_mean=_rounded(tokens.mean()), cosine_p1=_rounded(np.quantile(tokens, 0.01))
    )


def _cosines(exact: Float32, found: Float32) -> Float64:
    left, right = exact.astype(np.float64), found.astype(np.float64)
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def _rounded(value: np.floating[Any]) -> float:
    return round(float(value), 6)
