"""Vision graphs of a pack, which all tasks share.

Their stages are written before the text graphs, which are calibrated with their outputs; the heads of those that give
finished vectors are written after them, as their codes are those of texts and images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedpack.pack.graph_io import SENTENCE_EMBEDDING
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.assembly.pack_builder import PackBuilder
from embedpack_export.assembly.stage_writing import GraphSource, write_stages
from embedpack_export.families.model import Vision
from embedpack_export.graph.formats.by_name import vision_formats
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, open_heads
from embedpack_export.stages.graph_heads import Heads, image_token_heads, image_vector_heads
from embedpack_export.stages.graph_writer import GraphWriter
from embedpack_export.stages.inputs import image_feeds
from embedpack_export.stages.output_codes import SpaceCodes
from embedpack_export.stages.task_run import ImageVectors
from embedpack_export.stages.written_run import WrittenRun


@dataclass(frozen=True)
class VisionStages:
    """Vision graphs that have all stages, and no heads yet; the outputs of the tower for its calibration images."""

    writers: Mapping[WeightsFormat, GraphWriter]  # empty: the model reads texts only
    images: ImageVectors


def write_vision_stages(plan: ExportPlan, pack: PackBuilder) -> VisionStages:
    """Write all stages of the vision graph of each weights format, if the model reads images."""
    vision = plan.model.vision
    if vision is None:
        return VisionStages({}, ImageVectors([], {name: [] for name in pack.weights}))
    feeds = image_feeds(plan)
    weights = Weights(plan.checkpoint, None, plan.model.rules, vision.tensors.search)
    # The golden image is the last one.
    exact = ExactRun(feeds, weights, observed=len(feeds) - 1)
    written = {name: WrittenRun(feeds) for name in pack.weights}
    runs = {name: [run] for name, run in written.items()}
    source = GraphSource("vision", vision.model, weights, vision_formats(plan.formats))
    writers = write_stages(source, [exact], runs, pack)
    weights.check_all_used()
    if vision.gives == "vectors":
        return VisionStages(writers, _vectors(plan, vision, exact, written, pack))
    states = {name: list(run.states()) for name, run in written.items()}
    return VisionStages(writers, ImageVectors(list(exact.states()), states))


def _vectors(
    plan: ExportPlan,
    vision: Vision,
    exact: ExactRun,
    written: Mapping[WeightsFormat, WrittenRun],
    pack: PackBuilder,
) -> ImageVectors:
    """Finished vectors of the images."""
    with open_heads(vision.model, image_vector_heads(plan, None), exact.weights, pack.scratch) as session:

        def apply(run: ExactRun | WrittenRun) -> list[Float32]:
            batches = zip(run.feeds, run.states(), strict=True)
            return [session.run([SENTENCE_EMBEDDING], feeds | {"hidden": values})[0] for feeds, values in batches]

        return ImageVectors(apply(exact), {name: apply(run) for name, run in written.items()})


def finish_vision_graphs(
    plan: ExportPlan, stages: VisionStages, codes: Mapping[str, SpaceCodes], pack: PackBuilder
) -> None:
    """Write the heads of the vision graphs and add them to the pack; `codes` are those of the spaces."""
    vision = plan.model.vision
    if vision is None:
        return
    heads: Heads = image_token_heads
    if vision.gives == "vectors":
        # The vectors of images are those of one space, that of the only task.
        (space,) = plan.tasks_by_space
        heads = image_vector_heads(plan, codes[space])
    for name, writer in stages.writers.items():
        writer.finish(heads, pack.folder / f"vision-{name}.onnx")
        pack.add_vision(name, plan.formats[name].device, vision.gives)
