"""Vectors of the fp32 graph of a plan, with the adapter of a task in the weights or as inputs of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.vectors.arrays import Float32
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.graph.lora_branches import AdapterBranches, adapter_changes
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.graph_heads import text_heads
from embedpack_export.stages.graph_writer import GraphWriter
from tests.helpers.onnx_probe import run_model


def graph_vectors(plan: ExportPlan, folder: Path, ids: list[Any], *, switchable: bool) -> Float32:
    """Vectors of the fp32 graph, with the adapter merged or as its inputs."""
    adapter, rules = plan.tasks["code"].adapter, plan.model.rules
    assert adapter is not None
    target = folder / ("switchable" if switchable else "merged")
    target.mkdir()
    modules = frozenset(adapter_changes(adapter, rules))
    branches = AdapterBranches(modules) if switchable else None
    weights = Weights(plan.checkpoint, None if switchable else adapter, rules, plan.is_text_tensor)
    writer = GraphWriter("graph", WeightStore(target), plan.model.text, weights, Fp32(), branches)
    for index in range(len(plan.model.text.stages)):
        writer.append(index, {})
    writer.finish(text_heads(plan, None), target / "graph.onnx")
    weights.check_all_used()
    inputs: Mapping[str, Any] = {} if branches is None else branches.tensors(adapter, rules)
    rows = [
        run_model(
            str(target / "graph.onnx"),
            ["sentence_embedding"],
            {"input_ids": row[None], "attention_mask": np.ones_like(row)[None], **inputs},
        )[0][0]
        for row in ids
    ]
    return np.stack(rows)
