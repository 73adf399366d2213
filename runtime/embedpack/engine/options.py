"""Options of a call of `Embedder`, and of each run of the encoder that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from embedpack.errors import OptionError, unknown
from embedpack.inputs.items import Item
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.manifest import NO_PREFIX
from embedpack.vectors.codes import Precision
from embedpack.vectors.metric import Metric

# More threads than any host has cores; each takes memory for its stack.
MAX_THREADS = 1024

OnLong = Literal["truncate", "error"]
OnEmpty = Literal["error", "skip", "zero"]
ON_LONG, ON_EMPTY = get_args(OnLong), get_args(OnEmpty)


class EncodeSettings(NamedTuple):
    """Options of a call as its caller names them; `Embedder.encode` describes each.

    `multi`: multi-vectors; `late_chunking`: single vectors of the chunks of documents.
    """

    task: str | Sequence[str] | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    precision: str = "float32"
    on_long: OnLong = "truncate"
    on_empty: OnEmpty = "error"
    max_pixels: int | None = None
    multi: bool = False
    late_chunking: bool = False
    pool_factor: int = 1


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Options of a call of `Reranker`, which describes each; OptionError for an unknown `on_long`."""

    on_long: OnLong = "truncate"
    instruction: str | None = None

    def __post_init__(self) -> None:
        if self.on_long not in ON_LONG:
            raise OptionError(unknown("on_long", self.on_long, ON_LONG))


@dataclass(frozen=True)
class EncodeOptions:
    """Options of a run of the encoder: those of a call, with the prompt and the adapter of a task.

    `adapter` is a task of a switchable variant. OptionError for a value that no pack accepts.
    """

    prompt: Prompt = NO_PREFIX
    adapter: str | None = None
    on_long: OnLong = "truncate"
    on_empty: OnEmpty = "error"
    max_pixels: int | None = None
    pool_factor: int = 1

    def __post_init__(self) -> None:
        if self.on_long not in ON_LONG:
            raise OptionError(unknown("on_long", self.on_long, ON_LONG))
        if self.on_empty not in ON_EMPTY:
            raise OptionError(unknown("on_empty", self.on_empty, ON_EMPTY))
        if self.max_pixels is not None and (not isinstance(self.max_pixels, int) or self.max_pixels < 1):
            raise OptionError(f"max_pixels is {self.max_pixels!r}; it must be a whole number of at least 1")
        if not isinstance(self.pool_factor, int) or self.pool_factor < 1:
            raise OptionError(f"pool_factor is {self.pool_factor!r}; it must be a whole number of at least 1")


@dataclass(frozen=True)
class TaskItems:
    """Items of one task of a call, the options of their run, and their positions among the items of the call."""

    items: list[Item]
    options: EncodeOptions
    rows: npt.NDArray[np.intp]


@dataclass(frozen=True)
class EncodeCall:
    """Options of a call, resolved against the pack.

    `by_task` are the options with the prompt and the adapter of each task; `tasks` has the task of each input, None:
    all inputs have the only task. `space` is that of the vectors, and `metric` that of single vectors.
    """

    precision: Precision
    dimensions: int
    options: EncodeOptions
    by_task: Mapping[str, EncodeOptions]
    tasks: Sequence[str] | None
    space: str
    metric: Metric

    def groups(self, items: list[Item]) -> Iterator[TaskItems]:
        """Items by task; a task without any is left out."""
        for name, options in self.by_task.items():
            mine = [row for row, item in enumerate(items) if self.tasks is None or self.tasks[item.number] == name]
            if mine:
                yield TaskItems([items[row] for row in mine], options, np.array(mine, np.intp))


def check_threads(threads: int | None, name: str = "threads") -> None:
    """Raise OptionError for a number of threads that no host has; None is the default number."""
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS):
        raise OptionError(f"{name} is {threads!r}; it must be a whole number from 1 to {MAX_THREADS}")
