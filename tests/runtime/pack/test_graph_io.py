"""The graphs of a pack have the inputs and outputs that `graph_io` lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import (
    IMAGE_INPUTS,
    SENTENCE_EMBEDDING,
    TEXT_INPUTS,
    TOKEN_EMBEDDINGS,
    GraphInput,
    binary_output,
    center_input,
    int8_output,
    lora_inputs,
    output_for,
    vision_inputs,
)
from embedpack.vectors.codes import PRECISIONS


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_inputs_and_outputs_of_a_text_graph(tiny: Path, weights: str) -> None:
    manifest = read_pack(tiny).manifest
    graph = tiny / manifest.variants[f"default-{weights}"].graph
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = [GraphInput(item.name, np.int64, tuple(item.shape)) for item in session.get_inputs()]
    assert found == list(TEXT_INPUTS)
    assert {item.type for item in session.get_inputs()} == {"tensor(int64)"}
    assert manifest.single is not None
    size = manifest.single.dimensions
    assert [(item.name, item.type, item.shape) for item in session.get_outputs()] == [
        (SENTENCE_EMBEDDING, "tensor(float)", ["batch", size]),
        (int8_output(SENTENCE_EMBEDDING), "tensor(int8)", ["batch", size]),
        (binary_output(SENTENCE_EMBEDDING), "tensor(uint8)", ["batch", size // 8]),
    ]


def test_names_of_the_format() -> None:
    assert [item.name for item in (*TEXT_INPUTS, *IMAGE_INPUTS)] == [
        "input_ids", "attention_mask", "position_ids", "pool_mask", "image_embeds", "image_index",
    ]  # fmt: skip
    assert [item.name for item in vision_inputs(1176, 64)] == [
        "patches", "patch_positions", "window_rows", "window_mask", "window_slots", "token_rows",
    ]  # fmt: skip
    assert lora_inputs("layers.0.q") == ("layers.0.q.lora_A", "layers.0.q.lora_B")
    assert center_input(TOKEN_EMBEDDINGS) == "token_embeddings_center"


@pytest.mark.parametrize("vectors", ["sentence_embedding", "token_embeddings"])
def test_every_precision_is_made_from_an_output(vectors: str) -> None:
    outputs = {precision: output_for(vectors, precision) for precision in PRECISIONS}
    assert outputs == {name: vectors for name in PRECISIONS} | {"int8": f"{vectors}_int8"}
