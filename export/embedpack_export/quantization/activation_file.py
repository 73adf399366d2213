"""Activations kept in a file: those of a whole calibration, read again batch by batch while a stage is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack_export.arrays import Float32


@dataclass(frozen=True)
class Tokens:
    """Real tokens of a batch.

    Attributes:
        values: one after the other, float32 [n, channels].
        shares: how much each counts, so that all of a text together count 1; float32 [n, 1].
    """

    values: Float32
    shares: Float32


class Recording:
    """Tokens of one activation of k channels, of several flows of batches."""

    def __init__(self, path: Path, channels: int) -> None:
        """Begin; a file that is there already belongs to a stage that was written, and goes."""
        path.unlink(missing_ok=True)
        path.touch()
        self._path = path
        self._channels = channels
        self._flows: list[list[Float32]] = []

    @property
    def batches(self) -> tuple[int, ...]:
        """How many batches each flow has."""
        return tuple(len(batches) for batches in self._flows)

    def add(self, flow: int, tokens: Tokens) -> None:
        """Append a batch of a flow: 0, 1, ... in rising order."""
        self._flows += [[] for _ in range(len(self._flows), flow + 1)]
        with self._path.open("ab") as stream:
            stream.write(np.ascontiguousarray(tokens.values, np.float32).data)
        self._flows[flow].append(tokens.shares)

    def __iter__(self) -> Iterator[Tokens]:
        """The batches of all flows, in their order."""
        offset = 0
        for shares in (shares for batches in self._flows for shares in batches):
            count = len(shares) * self._channels
            values = np.fromfile(self._path, np.float32, count, offset=4 * offset)
            yield Tokens(values.reshape(len(shares), self._channels), shares)
            offset += count
