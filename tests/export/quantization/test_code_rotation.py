"""Rotations that are learned: orthogonal, better for signs than none, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from embedpack.vectors.arrays import Float32
from embedpack_export.quantization.code_rotation import learn_rotation


def uneven(count: int, dimensions: int, seed: int = 0) -> Float32:
    """Centered vectors, the first dimensions of which have a hundred times the spread of the last."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimensions)) * np.geomspace(1, 0.01, dimensions)
    return (vectors - vectors.mean(axis=0)).astype(np.float32)


def sign_error(vectors: Float32) -> float:
    """Mean 1 - cosine of vectors with their signs."""
    return float(1 - (np.abs(vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)).mean() / vectors.shape[1] ** 0.5)


@pytest.mark.parametrize("count", [200, 5], ids=["many vectors", "fewer vectors than dimensions"])
@pytest.mark.parametrize("ends", [(24,), (8, 16, 24), (1, 24)], ids=str)
def test_blocks_are_orthogonal_and_end_where_truncations_do(count: int, ends: tuple[int, ...]) -> None:
    blocks = learn_rotation(uneven(count, 24), ends, seed=0)
    assert np.cumsum([len(block) for block in blocks]).tolist() == list(ends)
    for block in blocks:
        assert block.dtype == np.float32
        np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-5)


def test_signs_say_more_of_rotated_vectors() -> None:
    """Of others than the rotation was learned from, too; and more than after the random rotation it began with."""
    seen, others = uneven(500, 24), uneven(500, 24, seed=1)
    (block,) = learn_rotation(seen, (24,), seed=0)
    random = np.linalg.qr(np.random.default_rng(2).standard_normal((24, 24)))[0].astype(np.float32)
    assert sign_error(others @ block.T) < 0.95 * sign_error(others @ random.T) < sign_error(others)


def test_the_same_vectors_and_seed_give_the_same_rotation() -> None:
    vectors = uneven(20, 24)
    first, again, other = (learn_rotation(vectors, (8, 24), seed) for seed in (0, 0, 1))
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first, other))


def test_a_block_does_not_depend_on_those_behind_it() -> None:
    vectors = uneven(40, 24)
    np.testing.assert_array_equal(learn_rotation(vectors, (8, 24), 0)[0], learn_rotation(vectors[:, :8], (8,), 0)[0])
