"""Memory of an export: it does not grow with the layers, or with the rows that are merged."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack_export.families.bert import RULES
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.peft_adapter import read_adapter
from embedpack_export.sources.weights import Weights
from tests.helpers.exports import (
    calibration_file,
    quick,
    write_adapter,
)
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


# --- memory


def peak_of(action: Callable[[], object]) -> int:
    """Most bytes that Python objects and numpy arrays took at once."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def wide_checkpoint(folder: Path, layers: int) -> Path:
    """Wide enough that arrays, not the Python objects of nodes, decide the memory."""
    shape: dict[str, Any] = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 2}
    checkpoint = make_checkpoint(folder / f"toy-{layers}", num_hidden_layers=layers, **shape)
    (checkpoint / "config_sentence_transformers.json").unlink()
    return checkpoint


class Nearest:
    """Rounding to nearest in place of gptq, which would invert a large matrix for every layer."""

    def __init__(self, columns: int) -> None:
        self.order = np.arange(columns)

    @classmethod
    def for_covariance(cls, covariance: np.ndarray) -> Nearest:
        assert covariance.shape[0] == covariance.shape[1]
        return cls(len(covariance))

    def round(self, weights: np.ndarray, scales: np.ndarray, low: int, high: int) -> np.ndarray:
        return np.clip(np.rint(weights / scales), low, high)


def test_peak_memory_does_not_grow_with_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and calibration data are streamed: 36 layers need no more memory than 2."""
    monkeypatch.setattr("embedpack.engine.golden.TEXTS", ("a cat",))
    monkeypatch.setattr("embedpack_export.quantization.gptq.Rounding", Nearest)
    few, many = (
        quick(wide_checkpoint(tmp_path, layers), tmp_path / f"pack-{layers}", weights=("int8",), overwrite=True)
        for layers in (2, 6)
    )
    calibration_file(tmp_path, ("a cat", "how to"))
    export(few)
    assert peak_of(lambda: export(many)) < 1.2 * peak_of(lambda: export(few))


def test_merging_takes_the_memory_of_a_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merged table is never whole in memory: 8 chunks of 32 rows take about the memory of one."""
    monkeypatch.setattr("embedpack_export.arrays.CHUNK_ROWS", 32)
    checkpoint = make_checkpoint(tmp_path / "toy", hidden_size=512, num_hidden_layers=1)
    rng = np.random.default_rng(0)
    key, module = "base_model.model.embeddings.word_embeddings", "embeddings.word_embeddings"
    rows = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    update = {
        f"{key}.lora_embedding_A": rng.standard_normal((4, rows)).astype(np.float32),
        f"{key}.lora_embedding_B": rng.standard_normal((512, 4)).astype(np.float32),
    }
    adapter = read_adapter(write_adapter(tmp_path / "adapter", update), "any")
    weights = Weights(read_checkpoint(checkpoint), adapter, RULES)

    def read_all() -> None:
        for _ in weights.matrix(module, (rows, 512)).chunks():
            pass

    read_all()
    assert peak_of(read_all) < rows * 512 * 4
