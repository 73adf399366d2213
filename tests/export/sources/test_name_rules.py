"""Names of tensors and modules: prefixes, renamed parts, and fused modules as the parts of the graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.errors import CheckpointError, InputError
from embedpack.storage.safetensors import StoredTensor, open_safetensors, write_safetensors
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import ReadRows
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.name_rules import NameRules
from tests.helpers.exports import exactly

RULES = NameRules(
    prefixes=("model.",),
    renames={"encoder.layer.": "layers.", ".attention.": ".attn."},
    unused=re.compile("^head"),
    fused={".attn.qkv": (".attn.q", ".attn.k", ".attn.v")},
)


def stored(folder: Path, shape: tuple[int, ...]) -> StoredTensor:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    write_safetensors(folder / "tensors.safetensors", {"before": np.zeros(3, np.float32), "w": values}, {})
    return open_safetensors(folder / "tensors.safetensors").tensors["w"]


@given(rows=st.integers(0, 5), count=st.integers(1, 4), columns=st.integers(0, 3))
def test_blocks_of_rows_are_the_tensor_in_parts(
    tmp_path_factory: pytest.TempPathFactory, rows: int, count: int, columns: int
) -> None:
    tensor = stored(tmp_path_factory.mktemp("blocks"), (rows * count, columns))
    blocks = tensor.blocks(count)
    assert [block.shape for block in blocks] == [(rows, columns)] * count
    np.testing.assert_array_equal(np.concatenate([block.float32() for block in blocks]), tensor.float32())
    assert len(set(blocks)) == (count if rows else 1)


def test_rows_without_equal_blocks(tmp_path: Path) -> None:
    tensor = stored(tmp_path, (7, 2))
    with pytest.raises(
        InputError, match=exactly(f"{tensor.path}: w has the shape [7, 2], whose rows are no 3 equal blocks")
    ):
        tensor.blocks(3)


@pytest.mark.parametrize("leaf", ["", ".weight", ".bias"])
def test_a_fused_module_is_its_parts(tmp_path: Path, leaf: str) -> None:
    tensor = stored(tmp_path, (6, 2))
    found = RULES.of_graph(
        [(f"model.encoder.layer.3.attention.qkv{leaf}", tensor), (f"model.other{leaf}", tensor)], "x"
    )
    assert list(found) == [f"layers.3.attn.{part}{leaf}" for part in "qkv"] + [f"other{leaf}"]
    np.testing.assert_array_equal(found[f"layers.3.attn.k{leaf}"].float32(), tensor.float32()[2:4])
    assert found[f"other{leaf}"] is tensor


def test_a_normal_name_stays() -> None:
    once = RULES.normal("model.encoder.layer.0.attention.qkv.weight")
    assert RULES.normal(once) == once == "layers.0.attn.qkv.weight"


def test_a_part_next_to_the_fused_module(tmp_path: Path) -> None:
    tensor = stored(tmp_path, (6, 2))
    with pytest.raises(
        CheckpointError, match=r"^x: two tensors are named 'a\.attn\.q\.weight'; one of them is 'a\.attn"
    ):
        RULES.of_graph([("a.attn.q.weight", tensor), ("a.attn.qkv.weight", tensor)], "x")


@pytest.mark.parametrize("magnitude", [None, (6,), (1, 6)])
def test_blocks_of_an_update_share_its_first_factor(tmp_path: Path, magnitude: tuple[int, ...] | None) -> None:
    for name in ("a", "b", "magnitude"):
        (tmp_path / name).mkdir()
    a, b = stored(tmp_path / "a", (2, 5)), stored(tmp_path / "b", (6, 2))
    scales = None if magnitude is None else stored(tmp_path / "magnitude", magnitude)
    update = LowRankUpdate("m", a, b, 0.5, "linear", scales)
    base = np.random.default_rng(1).standard_normal((6, 5)).astype(np.float32)
    whole = update.merge(reader(base), None)(slice(0, 6))
    for index, block in enumerate(update.blocks(3)):
        rows = slice(2 * index, 2 * index + 2)
        block.check_shape((2, 5))
        np.testing.assert_array_equal(block.merge(reader(base[rows]), None)(slice(0, 2)), whole[rows])


def reader(matrix: Float32) -> ReadRows:
    return lambda rows: matrix[rows]


def test_an_update_of_an_embedding_has_no_blocks(tmp_path: Path) -> None:
    tensor = stored(tmp_path, (6, 2))
    with pytest.raises(CheckpointError, match=r"^m: an update of an embedding, where the model has several linear"):
        LowRankUpdate("m", tensor, tensor, 1.0, "embedding").blocks(3)
