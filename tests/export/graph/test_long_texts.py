"""Graphs for long texts, computed in parts: feed-forward networks by inner channels, attention by heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from embedpack import Embedder
from embedpack.engine.session import GraphSession
from embedpack.inputs.batching import pad
from embedpack.pack.strict import WeightsFormat
from embedpack_export.pipeline import export
from tests.helpers.exports import distance, pooled, quick
from tests.helpers.peft_oracle import last_hidden_states, load_model, save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

ROWS = [np.random.default_rng(length).integers(4, 200, length) for length in (1, 40, 1030)]
# Sizes of each family, and how many nodes of some operators its two layers have.
CASES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "xlm-roberta": (
        {"max_position_embeddings": 1100, "intermediate_size": 128},
        {"Gelu": 4, "MultiHeadAttention": 4},
    ),
    "gte": ({"intermediate_size": 128}, {"Gelu": 8, "MultiHeadAttention": 4}),
    "modernbert": (
        {"hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 96},
        {"Gelu": 4, "MultiHeadAttention": 4, "Attention": 4},
    ),
}
# Attention operators of a model whose second layer attends to near tokens alone, if it has no parts.
PARTLY_LOCAL = {"modernbert": {"MultiHeadAttention": 1, "Attention": 1}}


def operators(graph: Path, kinds: Iterable[str]) -> dict[str, int]:
    """Number of nodes of each operator."""
    found = [node.op_type for node in ir.load(graph).graph]
    return {kind: found.count(kind) for kind in kinds}


def vectors(graph: Path, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[Any]:
    return GraphSession(graph, 1).run(["sentence_embedding"], pad(rows, 1))[0]


@pytest.mark.parametrize("family", CASES)
def test_parts_give_the_vectors_of_the_whole(tmp_path: Path, family: str) -> None:
    sizes, counts = CASES[family]
    checkpoint = make_checkpoint(tmp_path / "toy", family, num_hidden_layers=2, **sizes)
    formats: tuple[WeightsFormat, ...] = ("fp32", "int8", "fp16")
    export(quick(checkpoint, tmp_path / "pack", weights=formats))
    fp32, int8, fp16 = (tmp_path / "pack" / f"default-{weights}.onnx" for weights in formats)
    assert operators(fp32, counts) == counts
    # Graphs for GPUs have no parts.
    assert operators(fp16, counts) == {"Gelu": 2, "MultiHeadAttention": 2} | PARTLY_LOCAL.get(family, {})
    feeds = pad(ROWS, 1)
    expected = pooled(last_hidden_states(load_model(checkpoint), **feeds), feeds["attention_mask"], "mean")
    assert distance(vectors(fp32, ROWS), expected) <= 1e-6
    assert distance(vectors(fp16, ROWS), expected) <= 1e-3
    together = vectors(int8, ROWS)
    assert distance(together, expected) <= 0.01
    assert distance(np.concatenate([vectors(int8, [row]) for row in ROWS]), together) <= 1e-6


@pytest.mark.parametrize(
    ("family", "modules"),
    [("xlm-roberta", ["intermediate.dense", "output.dense"]), ("gte", ["up_gate_proj", "mlp.down_proj"])],
)
def test_branches_of_layers_in_parts_equal_merged_adapters(tmp_path: Path, family: str, modules: list[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", family, num_hidden_layers=2, **CASES[family][0])
    adapter = save_adapter(checkpoint, tmp_path / "code", target_modules=modules)
    modes = ("merged", "switchable")
    export(
        quick(checkpoint, tmp_path / "pack", adapters={"code": adapter}, adapter_modes=modes, weights=("fp32", "int8"))
    )
    texts = ["the cat sleeps", "list files"]
    for weights, tolerance in (("fp32", 1e-6), ("int8", 1e-2)):
        merged, switchable = (
            Embedder(tmp_path / "pack", variant=f"{name}-{weights}").encode(texts, task="code").decode()
            for name in ("code", "switchable")
        )
        assert distance(switchable, merged) <= tolerance
