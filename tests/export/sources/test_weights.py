"""Merged matrices are read as few times as an export needs; the relative change is summed during these reads."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.torch import load_file, save_file

from embedpack_export.arrays import ReadRows, RowIndex
from embedpack_export.pipeline import export
from embedpack_export.quantization.smoothing import ROWS
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.peft_adapter import read_adapter
from embedpack_export.sources.relative_change import RelativeChange
from tests.helpers.exports import quick, read_tensors, weights_of
from tests.helpers.peft_oracle import merged_by_peft, save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.token_projector import BASE, with_projector

TARGETS = ["query", "key", "value", "dense", "word_embeddings", "multi_vector_projector"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("weights") / "toy")


def adapter_of_all(checkpoint: Path, folder: Path, *, use_dora: bool) -> Path:
    """An adapter of every kind of matrix, with a projector."""
    model = with_projector(checkpoint, 5)
    projector = {f"{BASE}.{part}": value.clone() for part, value in model.multi_vector_projector.state_dict().items()}
    save_adapter(
        checkpoint, folder, model=model, target_modules=TARGETS, exclude_modules=["pooler.dense"], use_dora=use_dora
    )
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | projector, file)
    return folder


@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
def test_a_default_export_merges_each_row_three_times(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_dora: bool
) -> None:
    """For the run in float32, fp32 and int8; smoothing merges a sample of the rows."""
    whole: dict[str, npt.NDArray[np.intp]] = {}
    sampled: dict[str, int] = defaultdict(int)
    delta_of = LowRankUpdate._delta

    def counted(update: LowRankUpdate) -> ReadRows:
        delta, rows_of_matrix = delta_of(update), update.a.shape[1] if update.is_embedding else update.b.shape[0]
        merges = whole.setdefault(update.path, np.zeros(rows_of_matrix, np.intp))

        def read(rows: RowIndex) -> npt.NDArray[np.float32]:
            if isinstance(rows, slice):
                merges[rows] += 1
            else:
                sampled[update.path] += len(rows)
            return delta(rows)

        return read

    monkeypatch.setattr(LowRankUpdate, "_delta", counted)
    adapter = adapter_of_all(checkpoint, tmp_path / "adapter", use_dora=use_dora)
    manifest = export(quick(checkpoint, tmp_path / "pack", adapters={"retrieval": adapter}))
    assert [variant.weights for variant in manifest.variants.values()] == ["fp32", "int8"]
    assert len(whole) == len(read_adapter(adapter, "retrieval").updates) == 2 * 6 + 2
    # A LoRA is not merged into the table of words, only read once with it for the record of its change.
    once = set() if use_dora else {"embeddings.word_embeddings"}
    assert {name: set(merges.tolist()) for name, merges in whole.items()} == {
        name: {1} if name in once else {3} for name in whole
    }
    assert 0 < max(sampled.values()) <= ROWS


def test_the_relative_change_is_that_of_the_merged_matrices(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    base, merged = read_tensors(checkpoint / "model.safetensors"), merged_by_peft(checkpoint, adapter)
    changes = [np.linalg.norm(merged[name] - base[name]) / np.linalg.norm(base[name]) for name in merged]
    weights = weights_of(checkpoint, read_adapter(adapter, "any"))
    for name in (name for name in merged if name.endswith(("query.weight", "value.weight", "output.dense.weight"))):
        weights.matrix(name.removesuffix(".weight"), merged[name].shape)
    record = weights.adapter_record()
    assert record is not None
    assert record.relative_change == pytest.approx(max(changes), rel=1e-3)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([(0, 4), (4, 8), (8, 10)], id="once"),
        pytest.param([(0, 4), (4, 8), (8, 10), (0, 4), (4, 8), (8, 10)], id="twice"),
        pytest.param([(0, 4), (0, 4), (4, 8), (4, 8), (8, 10)], id="two readers"),
    ],
)
def test_each_row_is_in_the_relative_change_once(order: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(1)
    base, merged = (rng.standard_normal((10, 3)).astype(np.float32) for _ in range(2))
    change = RelativeChange()
    read = change.reader(base.__getitem__, merged.__getitem__)
    for start, stop in order:
        np.testing.assert_array_equal(read(slice(start, stop)), merged[start:stop])
    np.testing.assert_array_equal(read(np.array([0, 9])), merged[[0, 9]])
    assert change.rows == 10
    assert change.value == pytest.approx(np.linalg.norm(merged - base) / np.linalg.norm(base), rel=1e-6)
