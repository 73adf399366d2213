"""One graph: inputs, the family's model, the heads; and the calibration texts run through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from embedpack.codes import Float32
from embedpack.session import GraphSession
from embedpack.threads import available_cores
from embedpack_export.graph.heads import sentence_outputs
from embedpack_export.graph.target import GraphInputs, Target
from embedpack_export.plan import ExportPlan, TaskPlan


def write_graph(plan: ExportPlan, target: Target, int8_scale: float, path: Path) -> None:
    """Build a graph and write it; its weights go to the target's store on the way.

    Raises:
        CheckpointError: the weights are incomplete, or something of the checkpoint or the adapter is left over.
    """
    model, graph = plan.model, target.graph
    inputs = GraphInputs(
        graph.input("input_ids", ir.DataType.INT64, ["batch", "sequence"]),
        graph.input("attention_mask", ir.DataType.INT64, ["batch", "sequence"]),
    )
    hidden = model.hidden_states(target, inputs)
    target.weights.check_all_used()
    sentence_outputs(graph, hidden, inputs.attention_mask, plan.pooling, model.dimensions, int8_scale)
    ir.save(graph.build(), path)


def calibration_groups(plan: ExportPlan, task: TaskPlan) -> list[tuple[str, list[str]]]:
    """The calibration texts under the prompt that each of them gets, in a fixed order."""
    return sorted(plan.calibration.by_prompt(task.prompts, task.default_prompt_name).items())


def calibration_vectors(plan: ExportPlan, task: TaskPlan, graph: Path) -> Float32:
    """Vectors of the calibration texts, float32 [texts, dimensions], in the order of `calibration_groups`."""
    encoder = plan.encoder(GraphSession(graph, available_cores()))
    vectors = [
        encoder.run(texts, prompt=prompt, output="sentence_embedding")
        for prompt, texts in calibration_groups(plan, task)
    ]
    return np.concatenate(vectors).astype(np.float32)
