"""A file of calibration activations, read batch by batch while a stage is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.vectors.arrays import Float32


@dataclass(frozen=True)
class TokenActivations:
    """The tokens of a batch, without padding."""

    values: Float32  # activations, float32 [n, channels]
    # Weight of each token in means: 1 / number of tokens of its text, so that texts weigh the same; float32 [n, 1].
    token_weights: Float32


class ActivationFile:
    """All calibration tokens of one activation, for one or several runs of batches."""

    def __init__(self, path: Path, channels: int) -> None:
        """Create the file, replacing that of an earlier stage."""
        path.unlink(missing_ok=True)
        path.touch()
        self._path = path
        self._channels = channels
        self._token_weights: list[list[Float32]] = []

    @property
    def batches(self) -> tuple[int, ...]:
        """Number of batches of each run."""
        return tuple(len(batches) for batches in self._token_weights)

    def add(self, run: int, tokens: TokenActivations) -> None:
        """Append a batch; `run` is the number of its run, 0, 1, ... in ascending order."""
        self._token_weights += [[] for _ in range(len(self._token_weights), run + 1)]
        with self._path.open("ab") as stream:
            stream.write(np.ascontiguousarray(tokens.values, np.float32).data)
        self._token_weights[run].append(tokens.token_weights)

    def __iter__(self) -> Iterator[TokenActivations]:
        """Iterate over the batches of all runs, in the order in which they were added."""
        offset = 0
        for weights in (weights for batches in self._token_weights for weights in batches):
            count = len(weights) * self._channels
            values = np.fromfile(self._path, np.float32, count, offset=4 * offset)
            yield TokenActivations(values.reshape(len(weights), self._channels), weights)
            offset += count
