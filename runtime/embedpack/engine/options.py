"""Options of a call of `Embedder`, and of each run of the encoder that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, unknown
from embedpack.inputs.items import Item
from embedpack.vectors.codes import Precision

# More threads than any host has cores; each takes memory for its stack.
MAX_THREADS = 1024

OnLongText = Literal["truncate", "error"]


@dataclass(frozen=True)
class EncodeOptions:
    """Options of a run of the encoder: those of a call, with the prompt and the adapter of a task.

    `adapter` is a task of a switchable variant. InputError for a value that no pack accepts.
    """

    prompt: str = ""
    adapter: str | None = None
    on_long: OnLongText = "truncate"
    max_pixels: int | None = None
    pool_factor: int = 1

    def __post_init__(self) -> None:
        if self.on_long not in ("truncate", "error"):
            raise InputError(unknown("on_long", self.on_long, ("truncate", "error")))
        if self.max_pixels is not None and (not isinstance(self.max_pixels, int) or self.max_pixels < 1):
            raise InputError(f"max_pixels is {self.max_pixels!r}; it must be a whole number of at least 1")
        if not isinstance(self.pool_factor, int) or self.pool_factor < 1:
            raise InputError(f"pool_factor is {self.pool_factor!r}; it must be a whole number of at least 1")


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


def check_threads(threads: int | None, name: str = "threads") -> None:
    """Raise InputError for a number of threads that no host has; None is the default number."""
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS):
        raise InputError(f"{name} is {threads!r}; it must be a whole number from 1 to {MAX_THREADS}")
