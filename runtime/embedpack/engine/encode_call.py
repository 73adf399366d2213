"""A call of `Embedder.encode`, `encode_iter` or `encode_multi`, resolved against the pack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.engine.options import EncodeOptions
from embedpack.inputs.items import Item
from embedpack.vectors.codes import Precision


@dataclass(frozen=True)
class EncodeCall:
    """Options of a call, resolved against the pack.

    `by_task` are the options with the prompt and the adapter of each task; `tasks` has the task of each input, None:
    all inputs have the only task.
    """

    precision: Precision
    dimensions: int
    options: EncodeOptions
    by_task: Mapping[str, EncodeOptions]
    tasks: Sequence[str] | None

    def groups(self, items: list[Item]) -> Iterator[tuple[list[Item], EncodeOptions]]:
        """Items of each task with its options."""
        for name, options in self.by_task.items():
            if self.tasks is None:
                yield items, options
            else:
                yield [item for item, task in zip(items, self.tasks, strict=True) if task == name], options

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Position of each input in the concatenation of `groups`."""
        names = list(self.by_task)
        return np.argsort(np.argsort([names.index(task) for task in self.tasks or names], kind="stable"))
