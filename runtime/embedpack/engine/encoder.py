"""Texts and images through the graphs: process, sort by length, batch, run, restore the order.

One run on several threads is finished sooner, but its threads wait for each other at every operator. So with at least
as many batches as threads, each batch runs on one thread, several at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice

import numpy as np
import numpy.typing as npt

from embedpack.engine.batch_parts import joined_outputs
from embedpack.engine.call_stats import CallStats
from embedpack.engine.memory_plan import batch_bytes
from embedpack.engine.options import EncodeOptions
from embedpack.engine.ordered_threads import run_ordered
from embedpack.engine.output_check import OutputCheck, check_array
from embedpack.engine.session import Adapter, Array, Feeds, Session
from embedpack.engine.weight_sizes import WeightSizes
from embedpack.errors import CapacityError, InputError, ItemError
from embedpack.host.memory import check_memory
from embedpack.inputs.batching import one_by_one, token_budget_batches, windows
from embedpack.inputs.chunk_windows import chunk_weights
from embedpack.inputs.items import NO_INPUTS, Item
from embedpack.inputs.patches import ImagePatches
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.inputs.vision_layout import token_grid, vision_feeds
from embedpack.pack.graph_io import CHUNK_SUMS, CHUNK_WEIGHTS, IMAGE_EMBEDS, MARK_VECTORS
from embedpack.pack.input_recipes import QwenImage
from embedpack.pack.variants import Device
from embedpack.vectors.token_pooling import pool_rows

logger = logging.getLogger("embedpack")

# Measured on a 384-wide encoder: padding and cache misses cost more than small matrices do.
TOKEN_BUDGET = 256
# Above it, a batch is one very long text; its memory is checked before and released after the run.
LONG_TOKENS = 4096
# Of runs on a GPU: shortest text relative to the longest of its run, in runs of at least so many tokens.
SIMILAR_LENGTH, SMALL_PART = 0.75, 4096


@dataclass(frozen=True)
class Batch:
    """Model inputs that run together, and their positions among the items of the run, `rows` [n]."""

    rows: npt.NDArray[np.intp]
    inputs: list[ModelInput]

    @property
    def longest(self) -> int:
        """Number of tokens of the longest input."""
        return max([model_input.length for model_input in self.inputs])

    @property
    def tokens(self) -> int:
        """Number of tokens, padding included."""
        return len(self.inputs) * self.longest

    @property
    def of_vision_graph(self) -> bool:
        """True for one image, whose vector the vision graph gives."""
        return self.inputs[0].of_vision_graph

    @property
    def chunks(self) -> int:
        """Largest number of chunks of an input."""
        return max([0 if model_input.chunks is None else len(model_input.chunks) for model_input in self.inputs])

    @property
    def marks(self) -> int:
        """Largest number of marks of an input."""
        return max([1 if model_input.marks is None else len(model_input.marks) for model_input in self.inputs])

    def parts(self, budget: int) -> list[Batch]:
        """Parts of successive inputs within a token budget, each of texts of similar length.

        A part with fewer tokens than SMALL_PART takes texts of any length: a GPU computes it as fast as a smaller one.
        """
        cuts, longest = [0], 0
        for row, model_input in enumerate(self.inputs):
            tokens = (row - cuts[-1]) * longest
            wider = (row - cuts[-1] + 1) * max(longest, model_input.length)
            short = model_input.length < SIMILAR_LENGTH * longest and tokens >= SMALL_PART
            if row > cuts[-1] and (wider > budget or short):
                cuts.append(row)
                longest = 0
            longest = max(longest, model_input.length)
        ends = [*cuts[1:], len(self.inputs)]
        return [Batch(self.rows[start:end], self.inputs[start:end]) for start, end in zip(cuts, ends, strict=True)]


# A batch and its output.
Computed = tuple[Batch, Array]


@dataclass(frozen=True)
class LoadedGraph:
    """A loaded text graph and the facts that plan its runs.

    Attributes:
        session: session with `threads` threads.
        token_budget: fastest token budget on this host; None: not measured.
        weight_sizes: reads the sizes of the graph's weights from its file; None: unknown.
        one_thread_session: opens the same graph with one thread; None: a second copy of the weights would take too
            much memory.
        device: device of the sessions.
    """

    session: Session
    token_budget: int | None = None
    weight_sizes: Callable[[], WeightSizes] | None = None
    threads: int = 1
    one_thread_session: Callable[[], Session] | None = None
    device: Device = "cpu"


class Encoder:
    """The loaded graphs of a variant, its adapters and its processor."""

    def __init__(
        self,
        text: LoadedGraph,
        processor: Processor,
        outputs: OutputCheck,
        vision: Callable[[], Session] | None = None,
        adapters: Mapping[str, Adapter] | None = None,
    ) -> None:
        """Put the parts of a variant together.

        `outputs` checks what the text graph returns. `vision` opens the vision graph; None: the pack reads texts only.
        `adapters` of a switchable variant are by task.
        """
        self._text = text
        self._output_check = outputs
        self._vision = vision
        self._adapters = adapters or {}
        self._token_budget = text.token_budget or TOKEN_BUDGET
        self.processor = processor

    def run(self, items: Sequence[Item], output: str, options: EncodeOptions, stats: CallStats | None = None) -> Array:
        """Compute an output with one row per item: [len(items), ...] in the order of the items.

        InputError or CapacityError if an item cannot be used, or there are none. Without `stats` nothing is counted.
        """
        result: Array | None = None
        for batch, values in self._outputs(items, output, options, stats):
            if len(items) == 1:
                result = values
                continue
            if result is None:
                result = np.empty((len(items), *values.shape[1:]), values.dtype)
            result[batch.rows] = values
        if result is None:
            raise InputError(NO_INPUTS)
        return result

    def run_tokens(
        self, items: Sequence[Item], output: str, options: EncodeOptions, stats: CallStats | None = None
    ) -> list[Array]:
        """Compute an output with one row per token, and pool like tokens: an array [tokens, ...] for every item.

        The output is float32 if `options.pool_factor` is not 1. Errors and `stats` as of `run`.
        """
        result: dict[int, Array] = {}
        for batch, outputs in self._outputs(items, output, options, stats):
            for row, values, model_input in zip(batch.rows, outputs, batch.inputs, strict=True):
                vectors = model_input.of_multi_vector(values)
                if not len(vectors):
                    problem = "has no vector: its prompt leaves out all of its tokens; leave it out"
                    raise ItemError("text", items[row].number, problem)
                unpooled = model_input.of_multi_vector(model_input.unpooled)
                result[int(row)] = pool_rows(vectors, unpooled, options.pool_factor).copy()
        if not result:
            raise InputError(NO_INPUTS)
        return [result[row] for row in range(len(items))]

    def batches(self, items: Sequence[Item], options: EncodeOptions, stats: CallStats | None = None) -> Iterator[Batch]:
        """Process items window by window and batch each window by length; errors as of `run`."""
        budget, rules = self.token_budget, self.processor.rules
        start = 0
        for window in windows(items):
            inputs = self.processor.process(window, options.prompt, max_pixels=options.max_pixels)
            if stats is not None:
                stats.add(window, inputs, rules.limit(options.prompt))
            if options.on_long == "error":
                _refuse_truncated(window, inputs, rules.shown_limit(options.prompt))
            for rows in rows_of_batches(inputs, budget):
                yield Batch(start + rows, [inputs[row] for row in rows])
            start += len(window)

    @property
    def token_budget(self) -> int:
        """Number of tokens of one batch, padding included; a longer input is a batch of its own."""
        return self._token_budget

    def compute(self, batches: Iterator[Batch], output: str, adapter: str | None = None) -> Iterator[Computed]:
        """Run batches in their order, taken one by one as threads become free, and check each output.

        Vectors at marks are [inputs, largest number of marks, dimensions]. `adapter` is a task of a switchable variant.
        PackError or CapacityError if a batch fails.
        """
        weights = None if adapter is None else self._adapters[adapter]
        # Concurrent batches together hold at most LONG_TOKENS tokens, or one budget each if that is more.
        limit = min(LONG_TOKENS, max(LONG_TOKENS // self._text.threads, self.token_budget))
        for kind, group in groupby(batches, lambda batch: (batch.of_vision_graph, batch.tokens > limit)):
            of_texts = self._one_by_one if kind[1] else self._concurrently
            run = self._images if kind[0] else self._on_gpu if self._text.device == "cuda" else of_texts
            for batch, values in run(group, output, weights):
                parts = batch.marks if output == MARK_VECTORS else batch.chunks if output == CHUNK_SUMS else 0
                self._output_check.check(output, values, len(batch.rows), batch.longest, parts)
                yield batch, values.reshape(len(batch.rows), parts, -1) if output == MARK_VECTORS else values

    def _outputs(
        self, items: Sequence[Item], output: str, options: EncodeOptions, stats: CallStats | None
    ) -> Iterator[Computed]:
        for batch, values in self.compute(self.batches(items, options, stats), output, options.adapter):
            yield batch, values
            if stats is not None:
                stats.advance(len(batch.rows), sum(stats.work_of(items[row]) for row in batch.rows))

    def _images(self, batches: Iterator[Batch], output: str, adapter: Adapter | None) -> Iterator[Computed]:
        """Run the vision graph for each image on all threads; it has no adapter."""
        spec = self.processor.image
        assert self._vision is not None
        assert spec is not None
        for batch in batches:
            image = batch.inputs[0].image
            assert image is not None
            (values,) = self._vision().run([output], vision_feeds(image, spec))
            yield batch, values

    def _one_by_one(self, batches: Iterator[Batch], output: str, adapter: Adapter | None) -> Iterator[Computed]:
        """Run batches one by one, each on all threads.

        Above LONG_TOKENS, free memory is checked first and the memory of the run is released afterwards.
        """
        for batch in batches:
            long = batch.tokens > LONG_TOKENS
            if long:
                self._check_memory(batch)
            (values,) = self._text.session.run([output], self._feeds(batch), adapter, release_memory=long)
            yield batch, values

    def _concurrently(self, batches: Iterator[Batch], output: str, adapter: Adapter | None) -> Iterator[Computed]:
        """Run as many batches at a time as there are threads; with fewer batches, one by one on all threads."""
        threads = self._text.threads
        first = list(islice(batches, threads))
        open_session = self._text.one_thread_session if len(first) == threads else None
        session, workers = (self._text.session, 1) if open_session is None else (open_session(), threads)
        calls = (
            partial(_compute, session, output, adapter, batch, self._feeds(batch)) for batch in chain(first, batches)
        )
        return run_ordered(calls, workers) if workers > 1 else (call() for call in calls)

    def _on_gpu(self, batches: Iterator[Batch], output: str, adapter: Adapter | None) -> Iterator[Computed]:
        """Run batches one by one; the token budget is halved if one does not fit the memory, and it is run again."""
        for batch in batches:
            yield batch, self._gpu_output(batch, output, adapter)

    def _gpu_output(self, batch: Batch, output: str, adapter: Adapter | None, *, again: bool = False) -> Array:
        """Output of a batch, run in parts within the token budget; CapacityError if it does not fit `again`."""
        parts = batch.parts(self._token_budget)
        if len(parts) > 1:
            outputs = [self._gpu_output(part, output, adapter, again=again) for part in parts]
            if output != MARK_VECTORS:
                return joined_outputs(outputs)
            of_parts = zip(parts, outputs, strict=True)
            marks = joined_outputs([values.reshape(len(part.rows), part.marks, -1) for part, values in of_parts])
            return marks.reshape(-1, marks.shape[2])
        try:
            (values,) = self._text.session.run([output], self._feeds(batch), adapter, release_memory=again)
        except CapacityError as cause:
            if again or len(batch.rows) == 1:
                raise
            self._token_budget = min(self._token_budget, batch.tokens) // 2
            logger.warning("%s; the token budget is now %d", cause, self._token_budget)
        else:
            return values
        return self._gpu_output(batch, output, adapter, again=True)

    def _feeds(self, batch: Batch) -> Feeds:
        images = [model_input.image for model_input in batch.inputs if model_input.image is not None]
        feeds = self.processor.collate(batch.inputs, [self._image_embeds(image) for image in images])
        # Either all inputs of a batch have chunks or none.
        if batch.inputs[0].chunks is None:
            return feeds
        return feeds | {CHUNK_WEIGHTS: chunk_weights(batch.inputs, batch.longest)}

    def _check_memory(self, batch: Batch) -> None:
        """Refuse a batch that does not fit the memory."""
        if self._text.weight_sizes is not None:
            longest = batch.longest
            needed = batch_bytes(self._text.weight_sizes(), len(batch.inputs), longest)
            check_memory(needed, f"an input of {longest} tokens", "split it, or free some memory")

    def _image_embeds(self, image: ImagePatches) -> npt.NDArray[np.float32]:
        """Vectors of an image's tokens; one image per run, so that they do not depend on other images."""
        assert self._vision is not None
        spec = self.processor.image
        assert isinstance(spec, QwenImage)
        (embeds,) = self._vision().run([IMAGE_EMBEDS], vision_feeds(image, spec))
        rows, columns = token_grid(image, spec)
        check_array(IMAGE_EMBEDS, embeds, [rows * columns, spec.hidden], np.float32)
        return embeds


def rows_of_batches(inputs: Sequence[ModelInput], budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Positions of the inputs of each batch, longest first, as `token_budget_batches`; vision graphs take one image."""
    alone = [model_input.of_vision_graph for model_input in inputs]
    for rows in token_budget_batches([model_input.length for model_input in inputs], budget):
        yield from one_by_one(rows, alone)


def _compute(session: Session, output: str, adapter: Adapter | None, batch: Batch, feeds: Feeds) -> Computed:
    (values,) = session.run([output], feeds, adapter)
    return batch, values


def _refuse_truncated(items: Sequence[Item], inputs: Sequence[ModelInput], limit: str) -> None:
    for item, model_input in zip(items, inputs, strict=True):
        if model_input.truncated:
            raise ItemError(
                "text",
                item.number,
                f"has more than the {limit}; split it, or pass on_long='truncate'",
            )
