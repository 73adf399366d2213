"""Scores of lists from the vectors at their marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import PackError
from embedpack.engine.call_stats import CallStats
from embedpack.engine.list_scores import ListInputs
from embedpack.inputs.processor import ModelInput
from embedpack.vectors.arrays import Float32
from tests.runtime.inputs.test_lists import recipe

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def inputs(sizes: list[int], cut: list[int] | None = None, *, query_cut: bool = False) -> ListInputs:
    """Blocks with these numbers of documents."""
    blocks = [
        ModelInput(np.zeros(9, np.int64), slice(0, 9), np.ones(9, np.bool_), marks=np.arange(size + 1))
        for size in sizes
    ]
    return ListInputs(blocks, cut or [], query_cut, recipe("byte level"), Path("PACK"))


def vectors(sizes: list[int], seed: int) -> list[Float32]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size + 1, 6)).astype(np.float32) for size in sizes]


def cosine(a: Float32, b: Float32) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(sizes=SIZES, seed=st.integers(0, 99))
def test_the_query_is_the_weighted_mean_of_its_blocks(sizes: list[int], seed: int) -> None:
    blocks = [block.astype(np.float64) for block in vectors(sizes, seed)]
    weights = [max((1 + cosine(document, block[-1])) / 2 for document in block[:-1]) for block in blocks]
    query = sum(weight * block[-1] for weight, block in zip(weights, blocks, strict=True)) / sum(weights)
    expected = [cosine(document, query) for block in blocks for document in block[:-1]]
    found = inputs(sizes).scores(vectors(sizes, seed))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found.dtype == np.float32


def test_documents_opposite_to_the_query_have_scores() -> None:
    block = np.array([[-1, 0], [1, 0]], np.float32)
    assert inputs([1]).scores([block]).tolist() == [-1]
    assert inputs([1, 1]).scores([block, block]).tolist() == [-1, -1]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_vectors_without_a_direction(value: float) -> None:
    block = np.array([[value, value], [1, 0]], np.float32)
    with pytest.raises(PackError, match=r"^PACK: the graph computed a score that is not a finite number"):
        inputs([1]).scores([block])


def test_vectors_of_padding_are_left_out() -> None:
    output = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert inputs([2, 3]).kept(0, output).tolist() == output[:3].tolist()


def test_a_query_that_is_cut_is_counted_beside_the_documents() -> None:
    stats = CallStats(100, None)
    inputs([2, 1], [1, 2], query_cut=True).count(stats, 5)
    assert (stats.texts, stats.truncated, stats.truncated_ids) == (4, 3, ["6", "7", "query"])
