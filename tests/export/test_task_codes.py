"""What the codes of a task are made with, as graphs and files get it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedpack.pack.codebooks import read_codebooks
from embedpack.vectors.codebook import Codebook
from embedpack_export.quantization.codebook_fit import CodeFit
from embedpack_export.stages.output_codes import Fitted, TaskCodes


def fitted(dimensions: int, scale: float) -> Fitted:
    center = np.full(dimensions, 0.01, np.float32)
    return Fitted(scale, CodeFit(Codebook.gaussian(center, 0.1), ("center",), {}))


def test_a_graph_of_one_task_holds_its_codebooks() -> None:
    codes = TaskCodes(fitted(32, 0.004), fitted(16, 0.005), inputs=20)
    assert codes.tokens is not None
    assert codes.heads.tokens is not None
    assert codes.heads.sentence.codebook is codes.single.low_bit.codebook
    assert codes.heads.tokens.codebook is codes.tokens.low_bit.codebook


def test_a_graph_of_several_tasks_takes_their_centers() -> None:
    codes = TaskCodes(fitted(32, 0.004), fitted(16, 0.005), inputs=20)
    assert codes.shared_heads.tokens is not None
    assert (codes.shared_heads.sentence.codebook, codes.shared_heads.tokens.codebook) == (None, None)
    assert (codes.shared_heads.sentence.int8_scale, codes.shared_heads.tokens.int8_scale) == (0.004, 0.005)
    assert {name: len(center) for name, center in codes.center_inputs.items()} == {
        "sentence_embedding_center": 32,
        "token_embeddings_center": 16,
    }


def test_dimensions_that_fill_no_bytes_have_no_center_as_an_input() -> None:
    """Such a graph has no binary output that would read it."""
    assert list(TaskCodes(fitted(36, 0.004), fitted(16, 0.005), 20).center_inputs) == ["token_embeddings_center"]


def test_a_task_without_multi_vectors(tmp_path: Path) -> None:
    codes = TaskCodes(fitted(32, 0.004), None, inputs=20)
    assert codes.heads.tokens is None
    assert codes.shared_heads.tokens is None
    assert list(codes.center_inputs) == ["sentence_embedding_center"]
    codes.write(tmp_path / "calibration" / "any.safetensors")
    found = read_codebooks(tmp_path / "calibration" / "any.safetensors", 32, None)
    assert (found.single.id, found.token) == (codes.single.low_bit.codebook.id, None)
