"""Texts and images through the graphs: prepare, sort by length, batch, run, restore the order.

A run by several threads is sooner done, but they wait for each other at every operator. So as soon as there are as many
batches as threads, each batch is run by one thread, several at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedpack.engine.memory_plan import batch_bytes
from embedpack.engine.ordered_threads import run_ordered
from embedpack.engine.session import Adapter, GraphSession
from embedpack.engine.weight_sizes import WeightSizes
from embedpack.errors import InputError
from embedpack.host.memory import check_memory
from embedpack.inputs.batching import token_budget_batches, windows
from embedpack.inputs.processor import Item, ModelInput, Processor
from embedpack.inputs.vision_layout import vision_feeds
from embedpack.pack.graph_io import IMAGE_EMBEDS
from embedpack.progress import Progress
from embedpack.vectors.token_pooling import pool_rows

logger = logging.getLogger("embedpack")

# Measured on a 384-wide encoder: padding and cache misses cost more than small matrices do.
TOKEN_BUDGET = 256
# A batch of more tokens, which is one very long text, must fit the memory, and returns it.
LONG_TOKENS = 4096

OnLongText = Literal["truncate", "error"]
NOTHING = "nothing to embed: the list is empty"
Rows = npt.NDArray[np.intp]
Feeds = Mapping[str, npt.NDArray[Any]]
Batch = tuple[Rows, list[ModelInput]]
# Indices and output of a batch, and what went in.
Computed = tuple[Rows, npt.NDArray[Any], list[ModelInput]]


class CallStats:
    """Counts over all runs of one call: items for a progress bar, cut texts for one warning at the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._texts = 0
        self._cut = 0

    def add(self, window: Sequence[ModelInput]) -> None:
        """Count items that are about to be run."""
        self._texts += sum(item.image is None for item in window)
        self._cut += sum(item.cut for item in window)

    def finish(self, items: int) -> None:
        """Count items whose vectors are there."""
        self._progress.advance(items)

    def log_truncated(self) -> None:
        """Log how many texts were cut, if any."""
        if self._cut:
            logger.warning("%d of %d texts were longer than the model's limit and were cut", self._cut, self._texts)


@dataclass(frozen=True)
class EncodeOptions:
    """How items are read.

    Attributes:
        prompt: prefix of every text.
        on_long: whether a text over the limit of tokens is cut or refused.
        adapter: name of the active adapter of a switchable variant.
        max_pixels: size to which images are brought; None: the model's own limit.
        pool_factor: by how much the vectors of tokens become fewer (see `embedpack.vectors.token_pooling`).
        token_budget: most tokens of a batch, padding included; None: what is fastest on this host.
        numbers: of the items, for error messages; None: counted from 0.
        stats: told what was done.
    """

    prompt: str = ""
    on_long: OnLongText = "truncate"
    adapter: str | None = None
    max_pixels: int | None = None
    pool_factor: int = 1
    token_budget: int | None = None
    numbers: Sequence[int] | None = None
    stats: CallStats | None = None


@dataclass(frozen=True)
class LoadedGraph:
    """A graph with what is known about running it here.

    Attributes:
        session: the graph.
        token_budget: of a batch, the fastest on this host; None: not measured.
        weights: what its file says about them; None: not known.
        threads: of a run.
        one_thread_session: opens the same graph with one thread; None: a second copy of its weights would cost too
            much memory.
    """

    session: GraphSession
    token_budget: int | None = None
    weights: Callable[[], WeightSizes] | None = None
    threads: int = 1
    one_thread_session: Callable[[], GraphSession] | None = None


class Encoder:
    """The graphs of a variant with its processor.

    `vision` opens the graph that reads images, if there is one; `adapters` are those of a switchable variant, by task.
    """

    def __init__(
        self,
        text: LoadedGraph,
        processor: Processor,
        vision: Callable[[], GraphSession] | None = None,
        adapters: Mapping[str, Adapter] | None = None,
    ) -> None:
        self._text = text
        self._vision = vision
        self._adapters = adapters or {}
        self.processor = processor

    def run(self, items: Sequence[Item], output: str, options: EncodeOptions) -> npt.NDArray[Any]:
        """One output of the text graph for every item, in the order of the items.

        Returns:
            Array [len(items), ...] of the output's type.

        Raises:
            InputError, CapacityError: an item cannot be used.
        """
        result: npt.NDArray[Any] | None = None
        for rows, values, _ in self._outputs(items, output, options):
            if result is None:
                result = np.empty((len(items), *values.shape[1:]), values.dtype)
            result[rows] = values
        if result is None:
            raise InputError(NOTHING)
        return result

    def run_tokens(self, items: Sequence[Item], output: str, options: EncodeOptions) -> list[npt.NDArray[Any]]:
        """One output of the text graph for every token of every item, an array [tokens, ...] each.

        With a `pool_factor`, which takes float32 vectors, rows of several tokens.

        Raises:
            InputError, CapacityError: an item cannot be used.
        """
        result: dict[int, npt.NDArray[Any]] = {}
        for rows, values, batch in self._outputs(items, output, options):
            for row, found, item in zip(rows, values, batch, strict=True):
                result[int(row)] = pool_rows(found[: len(item.ids)], item.alone, options.pool_factor).copy()
        if not result:
            raise InputError(NOTHING)
        return [result[row] for row in range(len(items))]

    def batches(self, items: Sequence[Item], options: EncodeOptions) -> Iterator[Batch]:
        """The items in batches of like length: their indices, and what was made of them.

        Raises:
            InputError, CapacityError: an item cannot be used.
        """
        # All of them first: an unusable text at the end must not cost the work on those before it.
        numbers = range(len(items)) if options.numbers is None else options.numbers
        self.processor.check(items, numbers)
        budget = self._budget(options)
        start = 0
        for part in windows(items):
            known = numbers[start : start + len(part)]
            window = self.processor.process(part, options.prompt, numbers=known, max_pixels=options.max_pixels)
            if options.stats is not None:
                options.stats.add(window)
            if options.on_long == "error":
                _refuse_cut(window, known, self.processor.tokenizer.max_tokens)
            for rows in token_budget_batches([len(item.ids) for item in window], budget):
                yield start + rows, [window[row] for row in rows]
            start += len(part)

    def _outputs(self, items: Sequence[Item], output: str, options: EncodeOptions) -> Iterator[Computed]:
        """What was computed of each batch."""
        adapter = None if options.adapter is None else self._adapters[options.adapter]
        # Side by side, batches hold no more tokens together than a long one, or than their number asks for.
        most = min(LONG_TOKENS, max(LONG_TOKENS // self._text.threads, self._budget(options)))
        for large, batches in groupby(self.batches(items, options), lambda batch: _tokens(batch[1]) > most):
            computed = self._one_by_one if large else self._side_by_side
            for rows, values, batch in computed(batches, output, adapter):
                yield rows, values, batch
                if options.stats is not None:
                    options.stats.finish(len(rows))

    def _one_by_one(self, batches: Iterator[Batch], output: str, adapter: Adapter | None) -> Iterator[Computed]:
        """Large batches: all threads work on one. A long one must fit the memory, and returns it."""
        for rows, batch in batches:
            long = _tokens(batch) > LONG_TOKENS
            if long:
                self._check_memory(batch)
            yield _compute(self._text.session, output, adapter, (rows, batch), self._feeds(batch), release_memory=long)

    def _side_by_side(self, batches: Iterator[Batch], output: str, adapter: Adapter | None) -> Iterator[Computed]:
        """As many at a time as there are threads, if there are that many; else all threads work on one."""
        first = list(islice(batches, self._text.threads))
        single = self._text.one_thread_session if len(first) == self._text.threads else None
        session, workers = (self._text.session, 1) if single is None else (single(), self._text.threads)
        calls = (
            partial(_compute, session, output, adapter, item, self._feeds(item[1])) for item in chain(first, batches)
        )
        return run_ordered(calls, workers) if workers > 1 else (call() for call in calls)

    def _budget(self, options: EncodeOptions) -> int:
        return options.token_budget or self._text.token_budget or TOKEN_BUDGET

    def _feeds(self, batch: Sequence[ModelInput]) -> Feeds:
        embeds = [self._image_embeds(item) for item in batch if item.image is not None]
        return self.processor.collate(batch, embeds)

    def _check_memory(self, batch: Sequence[ModelInput]) -> None:
        """Refuse a batch that does not fit the memory."""
        if self._text.weights is not None:
            longest = max(len(item.ids) for item in batch)
            needed = batch_bytes(self._text.weights(), len(batch), longest)
            check_memory(needed, f"an input of {longest} tokens", "split it, or free some memory")

    def _image_embeds(self, item: ModelInput) -> npt.NDArray[np.float32]:
        """Vectors of an image's tokens. One image a run: so they do not depend on other images."""
        assert self._vision is not None
        assert item.image is not None
        assert self.processor.image is not None
        (embeds,) = self._vision().run([IMAGE_EMBEDS], vision_feeds(item.image, self.processor.image))
        return embeds


def _tokens(batch: Sequence[ModelInput]) -> int:
    """Tokens of a batch, padding included."""
    return len(batch) * max(len(item.ids) for item in batch)


def _compute(
    session: GraphSession,
    output: str,
    adapter: Adapter | None,
    batch: Batch,
    feeds: Feeds,
    *,
    release_memory: bool = False,
) -> Computed:
    rows, items = batch
    (values,) = session.run([output], feeds, adapter, release_memory=release_memory)
    return rows, values, items


def _refuse_cut(window: Sequence[ModelInput], numbers: Sequence[int], limit: int) -> None:
    for index, item in zip(numbers, window, strict=True):
        if item.cut:
            raise InputError(
                f"text {index} is longer than the model's limit of {limit} tokens; "
                "split it, or allow a cut with on_long='truncate'"
            )
