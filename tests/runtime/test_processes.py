"""An Embedder in processes that are spawned while another one is open in the parent."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpack import Embedder

TEXTS = ["a cat sleeps", "where is the router"]


def vectors(pack: str) -> npt.NDArray[np.float32]:
    with Embedder(pack, weights="fp32", threads=1) as model:
        return model.encode(TEXTS).decode()


def test_spawned_processes_compute_the_same_vectors(tiny: Path) -> None:
    with Embedder(tiny, weights="fp32", threads=1) as model:
        expected = model.encode(TEXTS).decode()
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for found in pool.map(vectors, [str(tiny)] * 2):
                np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(model.encode(TEXTS).decode(), expected)
