"""Means of hidden states over the tokens that a pooling reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack.pack.manifest import Pooling
from embedpack_export.stages.inputs import CollatedBatch, TaskInputs


@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=3),
    pooling=st.sampled_from(["cls", "last", "mean", "max", "weighted_mean", "mean_sqrt_len"]),
)
def test_the_mean_is_that_of_the_tokens_that_are_pooled(lengths: list[list[int]], pooling: Pooling) -> None:
    rng = np.random.default_rng(0)
    batches, hidden, expected = [], [], []
    for counts in lengths:
        mask = (np.arange(max(counts)) < np.array(counts)[:, None]).astype(np.int64)
        states = rng.normal(size=(*mask.shape, 3)).astype(np.float32)
        batches.append(CollatedBatch((), {ATTENTION_MASK: mask}))
        hidden.append(states)
        for row, count in zip(states, counts, strict=True):
            tokens = {"cls": row[:1], "last": row[count - 1 : count]}.get(pooling, row[:count])
            expected.append(tokens.mean(axis=0, dtype=np.float64))
    # Batches of golden inputs come after those of the calibration, and do not count.
    found = TaskInputs(batches, []).mean_vector([*hidden, np.ones((1, 1, 3), np.float32)], pooling)
    assert found == pytest.approx(np.mean(expected, axis=0), abs=1e-6)
