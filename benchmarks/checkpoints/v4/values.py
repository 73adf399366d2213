"""Random values of tensors, which depend on the seed and the tensor's name alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from benchmarks.checkpoints.v4.layout import Entry
from benchmarks.checkpoints.v4.shape import Spread
from benchmarks.checkpoints.v4.stream import CHUNK
from embedpack.vectors.arrays import Float32

DRAWN_VALUES = 1 << 24


class Normals:
    """Normally distributed values of tensors."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def chunks(self, name: str, shape: Sequence[int], deviation: float, mean: float = 0.0) -> Iterator[Float32]:
        """Yield the values of a tensor, in order."""
        for values in self._standard(name, math.prod(shape)):
            scaled = values * np.float32(deviation)
            scaled += np.float32(mean)
            yield scaled

    def _standard(self, name: str, count: int) -> Iterator[Float32]:
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        if count <= CHUNK:
            yield rng.standard_normal(count, np.float32)
            return
        # Billions of normals take minutes to draw. Slices of one block at random offsets are random enough: equal rows
        # are rare, and nothing depends on correlations between tensors.
        for start in range(0, count, CHUNK):
            offset = int(rng.integers(DRAWN_VALUES - CHUNK))
            yield self._block[offset : offset + min(CHUNK, count - start)]

    @cached_property
    def _block(self) -> Float32:
        return np.random.default_rng(self._seed).standard_normal(DRAWN_VALUES, np.float32)


class RandomValues:
    """Random values by entry, whose kind names its standard deviation."""

    def __init__(self, seed: int, spread: Spread) -> None:
        self._normals = Normals(seed)
        self._spread = spread

    def chunks(self, entry: Entry) -> Iterator[Float32]:
        """Yield the values of a base tensor."""
        if entry.kind == "projector":
            yield self._orthogonal(entry)
            return
        mean = 1.0 if entry.kind == "norm" else 0.0
        yield from self._normals.chunks(entry.name, entry.shape, getattr(self._spread, entry.kind), mean)

    def update(self, entry: Entry, inputs: int, deviation: float) -> Iterator[Float32]:
        """Yield the values of lora_A or lora_B of a matrix.

        Args:
            entry: the adapter tensor.
            inputs: number of inputs of the matrix.
            deviation: standard deviation of the matrix.
        """
        scale = inputs**-0.5
        if entry.kind == "lora_B":
            # So that the standard deviation of B A is `update` times that of the matrix.
            scale = self._spread.update * deviation / (scale * entry.shape[1] ** 0.5)
        return self._normals.chunks(entry.name, entry.shape, scale)

    def _orthogonal(self, entry: Entry) -> Float32:
        values = np.concatenate(list(self._normals.chunks(entry.name, entry.shape, 1.0)))
        return np.linalg.qr(values.reshape(entry.shape).T)[0].T.astype(np.float32).ravel()
