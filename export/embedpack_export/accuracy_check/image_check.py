"""Images of the accuracy check: the calibration images, in the pack and in the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack import Embedder
from embedpack.engine.options import EncodeSettings
from embedpack.inputs.items import Input
from embedpack.pack.accuracy_records import ImageAccuracy
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.budget import MIN_IMAGE_COSINE
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.reference.protocol import Reference
from embedpack_export.stages.calibration_images import calibration_images
from embedpack_export.stages.cosine_records import cosine_summary, recorded, token_cosines


@dataclass(frozen=True)
class ExpectedImages:
    """Images with the vectors of the reference for a task."""

    images: Sequence[npt.NDArray[np.uint8]]
    single: Float32  # unit vectors [images, dimensions]
    multi: Sequence[Float32] | None  # multi-vectors; None: the model has none


def expected_images(plan: ExportPlan, reference: Reference, task: str) -> ExpectedImages | None:
    """Vectors of the reference; None if the model reads no images, or the reference does not cover these."""
    if plan.model.vision is None:
        return None
    images = calibration_images(plan.seed)
    if not reference.covers(task, images):
        return None
    single = reference.single(task, images)
    return ExpectedImages(images, single, None if plan.tokens is None else reference.multi(task, images))


def image_accuracy(model: Embedder, task: str, expected: ExpectedImages) -> ImageAccuracy:
    """Cosines of the vectors of a pack with those of the reference."""
    settings, multi = EncodeSettings(task=task), None
    images: list[Input] = list(expected.images)
    with model.stats(len(images)) as stats:
        vectors = model.encode_part(images, settings, stats).decode()
        if expected.multi is not None:
            multi = token_cosines(expected.multi, model.encode_multi_part(images, settings, stats).decode())
    cosines = cosine_summary([expected.single], [vectors])
    return ImageAccuracy(images=cosines.count, single=recorded(cosines), multi=multi)


def images_read_differently(references: ChosenReference, task: str, expected: ExpectedImages) -> bool:
    """True if the exporter's float32 vectors of the images are not those of the main reference."""
    graph = references.fp32_graph
    if references.main is graph or not graph.covers(task, expected.images):
        return False
    cosines = cosine_summary([expected.single], [graph.single(task, expected.images)])
    return cosines.mean < MIN_IMAGE_COSINE["fp32"]
