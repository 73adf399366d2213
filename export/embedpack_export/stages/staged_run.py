"""Inputs that pass through a model stage by stage, with the hidden states between two stages in a file.

Those of all calibration texts of all tasks would take more memory than a stage.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.storage.atomic import disk_errors
from embedpack.vectors.arrays import Float32

Feeds = dict[str, npt.NDArray[Any]]


class HiddenFile:
    """Hidden states of the batches of a run, in their order."""

    def __init__(self, folder: Path) -> None:
        """Create an empty file in `folder`."""
        descriptor, name = tempfile.mkstemp(prefix="hidden.", dir=folder)
        os.close(descriptor)
        self._path = Path(name)
        self._shapes: list[tuple[int, ...]] = []

    def append(self, states: Float32) -> None:
        """Append the states of a batch; raises CapacityError or InputError if the file cannot be written."""
        with disk_errors(self._path), self._path.open("ab") as stream:
            stream.write(np.ascontiguousarray(states, np.float32).data)
        self._shapes.append(states.shape)

    def __iter__(self) -> Iterator[Float32]:
        """Read the states of one batch after the other."""
        offset = 0
        for shape in self._shapes:
            count = math.prod(shape)
            yield np.fromfile(self._path, np.float32, count, offset=4 * offset).reshape(shape)
            offset += count

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


@dataclass
class StagedRun:
    """Inputs of a model, batch by batch, and how far they have passed."""

    feeds: Sequence[Feeds]
    # Hidden states of each batch after the last stage that was run; None before the first.
    hidden: HiddenFile | None = field(default=None, kw_only=True)
    # Number of tokens of each text of each batch, also of those that no token attends to; None: those of the masks.
    lengths: Sequence[npt.NDArray[np.int64]] | None = field(default=None, kw_only=True)

    def lengths_of(self, batch: int) -> npt.NDArray[np.int64] | None:
        """Number of tokens of each text of a batch; None: that of its attention mask."""
        return None if self.lengths is None else self.lengths[batch]

    def batches(self) -> Iterator[tuple[Feeds, Float32 | None]]:
        """Each batch of inputs with its hidden states, None before the first stage."""
        return zip(self.feeds, repeat(None) if self.hidden is None else self.hidden, strict=False)

    def states(self, offset: Float32 | None = None) -> Iterator[Float32]:
        """Hidden states of each batch after the last stage, plus `offset` [size]."""
        assert self.hidden is not None
        return iter(self.hidden) if offset is None else (states + offset for states in self.hidden)

    def replace_states(self, hidden: HiddenFile | None) -> None:
        """Keep the hidden states after a stage, or none, and remove those before it."""
        if self.hidden is not None:
            self.hidden.remove()
        self.hidden = hidden
