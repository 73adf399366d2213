"""The fp32 graph of a checkpoint, written without calibration: faster than an export."""

from __future__ import annotations

from pathlib import Path

from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.graph_heads import text_heads
from embedpack_export.stages.graph_writer import GraphWriter


def write_fp32_graph(settings: ExportSettings) -> Path:
    """Write the graph of the only task into the folder `settings.output`, with all weights used."""
    plan = make_plan(settings)
    (task,) = plan.tasks.values()
    settings.output.mkdir()
    weights = Weights(plan.checkpoint, task.adapter, plan.model.rules, plan.is_text_tensor)
    writer = GraphWriter("graph", WeightStore(settings.output), plan.model.text, weights, Fp32())
    for index in range(len(plan.model.text.stages)):
        writer.append(index, {})
    path = settings.output / "graph.onnx"
    writer.finish(text_heads(plan, None), path)
    weights.check_all_used()
    return path
