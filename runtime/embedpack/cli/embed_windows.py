"""Inputs of `embedpack embed` window by window, with their places for messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from embedpack.errors import EmbedpackError, InputError, ItemError
from embedpack.inputs import batching
from embedpack.inputs.files import InputPart
from embedpack.inputs.items import Input

# Images are named by their number in messages, and their path, if they have one.
IMAGE = re.compile(r"image (\d+)(?: \([^)]*\))?")


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive inputs of a part.

    Attributes:
        part: the part.
        first: position of the first input in the part.
        inputs: the inputs.
        position: position of the first input among those of all parts.
    """

    part: InputPart
    first: int
    inputs: list[Input]
    position: int

    def between(self, start: int, stop: int | None = None) -> Window:
        """Inputs from `start` to `stop`."""
        return Window(self.part, self.first + start, self.inputs[start:stop], self.position + start)

    def located(self, error: EmbedpackError) -> EmbedpackError:
        """The error of an input with the place of that input in its file."""
        if isinstance(error, ItemError):
            return InputError(f"{self.part.location(self.first + error.number)}: the {error.kind} {error.problem}")
        match = IMAGE.match(str(error))
        if match is None:
            return error
        return type(error)(self.part.location(self.first + int(match[1])) + str(error)[match.end() :])


def windows(
    parts: Sequence[InputPart], on_error: Callable[[EmbedpackError], None], shard_size: int | None = None
) -> Iterator[Window]:
    """Windows of all parts in their order; with `shard_size`, each has inputs of one shard only.

    The error of a page ends its file, and is given to `on_error`.
    """
    position = 0
    for part in parts:
        items = iter(part.items)
        size = batching.WINDOW_IMAGES if part.images else batching.WINDOW_ITEMS
        first = 0
        failed: EmbedpackError | None = None
        while failed is None:
            most = size if shard_size is None else min(size, shard_size - position % shard_size)
            inputs: list[Input] = []
            try:
                inputs.extend(islice(items, most))
            except EmbedpackError as cause:
                failed = cause
            if inputs:
                yield Window(part, first, inputs, position)
            elif failed is None:
                break
            first += len(inputs)
            position += len(inputs)
        if failed is not None:
            on_error(failed)
