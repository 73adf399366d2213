"""Switchable adapters: those that differ in modules and ranks share a graph, those that are more are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.errors import CheckpointError
from embedpack_export.pipeline import export
from tests.helpers.exports import TEXTS, distance, quick
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("branches") / "toy")


def test_adapters_of_different_modules_and_ranks_equal_merged_ones(checkpoint: Path, tmp_path: Path) -> None:
    adapters = {
        "code": save_adapter(checkpoint, tmp_path / "code", target_modules=["query", "key"], rank_pattern={"key": 7}),
        "retrieval": save_adapter(checkpoint, tmp_path / "retrieval", target_modules=["output.dense"], r=2, seed=1),
    }
    modes = ("merged", "switchable")
    export(quick(checkpoint, tmp_path / "pack", adapters=adapters, adapter_modes=modes, weights=("fp32", "int8")))
    merged = {task: Embedder(tmp_path / "pack", variant=f"{task}-fp32") for task in adapters}
    switchable = Embedder(tmp_path / "pack", variant="switchable-fp32")
    vectors = {task: np.asarray(switchable.encode(list(TEXTS), task=task)) for task in (*adapters, *adapters)}
    for task, model in merged.items():
        assert distance(vectors[task], np.asarray(model.encode(list(TEXTS), task=task))) <= 1e-6
    assert distance(vectors["code"], vectors["retrieval"]) > 1e-3


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"target_modules": ["word_embeddings", "query"]}, "embeddings.word_embeddings: DoRA, lora_bias and adapted"),
        ({"use_dora": True}, "DoRA, lora_bias and adapted embeddings cannot be switched"),
        ({"lora_bias": True}, "DoRA, lora_bias and adapted embeddings cannot be switched"),
        ({"bias": "lora_only"}, "replaces encoder.layer.0.attention.output.dense.bias, which cannot be switched"),
        ({"modules_to_save": ["LayerNorm"]}, "replaces embeddings.LayerNorm.bias, which cannot be switched"),
    ],
    ids=["embedding", "DoRA", "lora_bias", "bias", "modules_to_save"],
)
def test_adapters_that_are_more_than_products_are_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", **config)
    output = tmp_path / "packs" / "toy"
    settings = quick(checkpoint, output, adapters={"code": adapter}, adapter_modes=("switchable",))
    with pytest.raises(CheckpointError, match=named):
        export(settings)
    assert list(output.parent.iterdir()) == []
