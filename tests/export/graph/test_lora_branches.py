"""Switchable adapters: those that differ in modules and ranks share a graph, those that are more are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
import pytest

from embedpack import Embedder
from embedpack.errors import CheckpointError
from embedpack_export.pipeline import export
from tests.helpers.exports import TEXTS, distance, exactly, quick
from tests.helpers.peft_oracle import adapted_by_peft, mean_vectors, save_adapter
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


TABLE = "embeddings.word_embeddings"


def test_a_table_is_stored_once_for_all_tasks_and_its_adapters_switch(checkpoint: Path, tmp_path: Path) -> None:
    """Merged and switchable equal PEFT, and each other."""
    adapters = {
        task: save_adapter(checkpoint, tmp_path / task, seed=seed, target_modules=["word_embeddings", "query"], r=r)
        for seed, (task, r) in enumerate((("code", 2), ("retrieval", 5)))
    }
    adapters["other"] = save_adapter(checkpoint, tmp_path / "other", seed=5)
    pack, modes, weights = tmp_path / "pack", ("switchable", "merged"), ("fp32", "int8", "int4")
    export(quick(checkpoint, pack, adapters=adapters, adapter_modes=modes, weights=weights, allow_loss=100))
    for kind in weights:
        stored = {name: table_data(pack / f"{name}-{kind}.onnx") for name in ("switchable", *adapters)}
        assert len(set(stored.values())) == 1, kind
    expected = {task: peft_vectors(checkpoint, folder) for task, folder in adapters.items()}
    switchable = Embedder(pack, variant="switchable-fp32")
    for task, vectors in expected.items():
        merged = Embedder(pack, variant=f"{task}-fp32")
        for model in (merged, switchable):
            found = np.asarray(model.encode(list(TEXTS), task=task))
            assert distance(found, vectors) <= 1e-6, task
    assert distance(expected["code"], expected["retrieval"]) > 1e-3
    assert distance(expected["code"], expected["other"]) > 1e-3


def peft_vectors(checkpoint: Path, adapter: Path) -> npt.NDArray[np.float64]:
    """Mean hidden states by PEFT's own layers; float64 [texts, hidden]."""
    return mean_vectors(adapted_by_peft(checkpoint, adapter), checkpoint / "tokenizer.json", TEXTS)


def table_data(graph: Path) -> tuple[str, int]:
    """File and first byte of the embedding table of a graph."""
    names = (f"{TABLE}.weight", f"{TABLE}.weight.int8", f"{TABLE}.weight.int4")
    stored = onnx_ir.load(graph).graph.initializers
    (tensor,) = (stored[name].const_value for name in names if name in stored)
    assert isinstance(tensor, onnx_ir.ExternalTensor)
    return str(tensor.location), int(tensor.offset or 0)


@pytest.mark.parametrize("table", ["position_embeddings", "token_type_embeddings"])
def test_adapters_on_the_other_tables_switch(checkpoint: Path, tmp_path: Path, table: str) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules=[table, "query"])
    pack = tmp_path / "pack"
    export(quick(checkpoint, pack, adapters={"code": adapter}, adapter_modes=("switchable",), weights=("fp32",)))
    found = np.asarray(Embedder(pack).encode(list(TEXTS), task="code"))
    assert distance(found, peft_vectors(checkpoint, adapter)) <= 1e-6


def test_an_adapter_on_attention_bias_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", "mpnet")
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules=["relative_attention_bias"])
    settings = quick(checkpoint, tmp_path / "pack", adapters={"code": adapter}, adapter_modes=("switchable",))
    message = (
        f"{adapter}: changes encoder.relative_attention_bias, which is no linear layer or table of embeddings and "
        "cannot be switched at run time; export it merged"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        export(settings)
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"target_modules": ["key"], "use_dora": True}, "key: DoRA and lora_bias cannot be switched at run time"),
        ({"lora_bias": True}, "DoRA and lora_bias cannot be switched"),
        ({"bias": "lora_only"}, "replaces encoder.layer.0.attention.output.dense.bias, which cannot be switched"),
        ({"modules_to_save": ["LayerNorm"]}, "replaces embeddings.LayerNorm.bias, which cannot be switched"),
    ],
    ids=["DoRA", "lora_bias", "bias", "modules_to_save"],
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
