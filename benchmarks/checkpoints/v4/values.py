"""Random values of tensors: the same for a seed and a name, whatever else is written."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from benchmarks.checkpoints.v4.layout import Entry
from benchmarks.checkpoints.v4.shape import Spread
from benchmarks.checkpoints.v4.stream import CHUNK, Float32

BLOCK = 1 << 24


class RandomValues:
    """Draws the values of entries."""

    def __init__(self, seed: int, spread: Spread) -> None:
        self._seed = seed
        self._spread = spread

    def chunks(self, entry: Entry) -> Iterator[Float32]:
        """The values of an entry of the base."""
        if entry.kind == "projector":
            yield self._orthogonal(entry)
            return
        mean = 1.0 if entry.kind == "norm" else 0.0
        for values in self._normal(entry.name, math.prod(entry.shape)):
            scaled = values * np.float32(self._deviation(entry))
            scaled += np.float32(mean)
            yield scaled

    def update(self, entry: Entry, inputs: int, deviation: float) -> Iterator[Float32]:
        """The values of lora_A or lora_B beside a matrix with that many inputs and that standard deviation."""
        scale = inputs**-0.5
        if entry.kind == "lora_B":
            # B A then has the deviation `update` times that of the matrix.
            scale = self._spread.update * deviation / (scale * entry.shape[1] ** 0.5)
        for values in self._normal(entry.name, math.prod(entry.shape)):
            yield values * np.float32(scale)

    def _deviation(self, entry: Entry) -> float:
        return {
            "linear": self._spread.linear,
            "features": self._spread.features,
            "embedding": self._spread.embedding,
            "bias": self._spread.bias,
            "norm": self._spread.norm,
        }[entry.kind]

    def _orthogonal(self, entry: Entry) -> Float32:
        values = np.concatenate(list(self._normal(entry.name, math.prod(entry.shape))))
        return np.linalg.qr(values.reshape(entry.shape).T)[0].T.astype(np.float32).ravel()

    def _normal(self, name: str, count: int) -> Iterator[Float32]:
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        if count <= CHUNK:
            yield rng.standard_normal(count, np.float32)
            return
        # Drawing billions of normals takes minutes. Pieces of one block, each from another place, serve as well here:
        # equal rows are a rare accident, and nothing looks for a correlation between tensors.
        for start in range(0, count, CHUNK):
            offset = int(rng.integers(BLOCK - CHUNK))
            yield self._block[offset : offset + min(CHUNK, count - start)]

    @cached_property
    def _block(self) -> Float32:
        return np.random.default_rng(self._seed).standard_normal(BLOCK, np.float32)
