"""How close a variant comes to the same weights in float32, on the calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedpack.pack import Accuracy, TokenAccuracy
from embedpack_export.calibration import REFERENCE_GRAPH
from embedpack_export.calibration_inputs import Batch, image_feeds, prepared_images, real_tokens, with_embeds
from embedpack_export.draft import VariantGraphs
from embedpack_export.graph.heads import SENTENCE, TOKENS
from embedpack_export.lora import Float32
from embedpack_export.plan import ExportPlan


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


def measure_variant(plan: ExportPlan, graphs: VariantGraphs, reference: Reference) -> Accuracy:
    """Run the calibration inputs through a variant."""
    embeds: list[Float32] = []
    if graphs.vision is not None:
        images = image_feeds(plan, prepared_images(plan))
        embeds = [graphs.vision.session.run(["image_embeds"], feeds)[0] for feeds in images]
    outputs = [SENTENCE] if reference.tokens is None else [SENTENCE, TOKENS]
    vectors, tokens = [], []
    for batch, feeds in zip(reference.batches, with_embeds(reference.batches, embeds), strict=True):
        found = graphs.text.session.run(outputs, feeds)
        vectors.append(found[0])
        tokens += [real_tokens(batch, item) for item in found[1:]]
    exact = None if reference.tokens is None else _cosines(reference.tokens, np.concatenate(tokens))
    return accuracy(_cosines(reference.vectors, np.concatenate(vectors)), exact)


def accuracy(cosines: Float32, tokens: Float32 | None) -> Accuracy:
    """Figures of the manifest from cosines of single vectors and of tokens."""
    return Accuracy(
        reference=REFERENCE_GRAPH,
        texts=len(cosines),
        cosine_mean=_rounded(cosines.mean()),
        cosine_p1=_rounded(np.quantile(cosines, 0.01)),
        cosine_min=_rounded(cosines.min()),
        tokens=None
        if tokens is None
        else TokenAccuracy(
            tokens=len(tokens), cosine_mean=_rounded(tokens.mean()), cosine_p1=_rounded(np.quantile(tokens, 0.01))
        ),
    )


def _cosines(exact: Float32, found: Float32) -> Float32:
    left, right = exact.astype(np.float64), found.astype(np.float64)
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def _rounded(value: np.floating) -> float:
    return round(float(value), 6)
