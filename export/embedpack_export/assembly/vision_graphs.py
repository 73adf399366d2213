"""Vision graphs of a pack, which all tasks share."""

from __future__ import annotations

from embedpack_export.assembly.pack_builder import PackBuilder
from embedpack_export.assembly.stage_writing import GraphSource, write_stages
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun
from embedpack_export.stages.graph_heads import vision_heads
from embedpack_export.stages.inputs import image_feeds
from embedpack_export.stages.task_run import ImageVectors
from embedpack_export.stages.written_run import WrittenRun


def write_vision_graphs(plan: ExportPlan, pack: PackBuilder) -> ImageVectors:
    """Write the vision graph of each weights format, if the model reads images; the vectors of calibration images."""
    if plan.model.vision is None:
        return ImageVectors([], {name: [] for name in pack.weights})
    vision, feeds = plan.model.vision, image_feeds(plan)
    weights = Weights(plan.checkpoint, None, plan.model.rules, vision.tensors.search)
    # The golden image is the last one.
    exact = ExactRun(feeds, weights, observed=len(feeds) - 1)
    written = {name: [WrittenRun(feeds)] for name in pack.weights}
    writers = write_stages(plan, GraphSource("vision", vision.model, weights), [exact], written, pack)
    weights.check_all_used()
    for name, writer in writers.items():
        writer.finish(vision_heads, pack.folder / f"vision-{name}.onnx")
        pack.add_vision(name)
    return ImageVectors(list(exact.states()), {name: list(runs[0].states()) for name, runs in written.items()})
