"""A request in the queue: its inputs, their rows that still have to be computed, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from embedpack.engine.chunk_means import ChunkSums
from embedpack.errors import ChunkError, EmbedpackError
from embedpack.inputs.chunk_windows import ChunkReader, ChunkWindow
from embedpack.inputs.documents import joined
from embedpack.inputs.items import Item, Text
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.graph_io import CHUNK_SUMS, TOKEN_EMBEDDINGS
from embedpack.pack.input_recipes import Prompt
from embedpack.server.request_errors import ErrorKind, RequestError, invalid
from embedpack.server.served_packs import ForwardKey
from embedpack.vectors.arrays import Float32


@dataclass(frozen=True)
class RequestInputs:
    """Inputs of a request and the options of their runs.

    Attributes:
        key: key of the runs.
        prompt: prompt of the texts.
        truncate: cut texts at the limit of the model or the prompt; else they are refused.
        max_tokens: most tokens of all inputs together.
    """

    key: ForwardKey
    items: Sequence[Item]
    prompt: Prompt
    truncate: bool
    max_tokens: int


@dataclass(frozen=True)
class JobResult:
    """Result of a request: what the graph gives for each input, the tokens that were read, and seconds by stage.

    An input has a unit vector, float32 [dimensions], or those of its tokens, float32 [tokens, dimensions]. In late
    chunking it has the mean of its tokens, float32 [dimensions], of any length.
    """

    vectors: list[Float32]
    tokens: int
    seconds: dict[str, float]


Outcome = JobResult | RequestError | EmbedpackError


class Job:
    """A request in the queue. The engine's thread owns all of it but `cancelled`, which the server may set."""

    def __init__(self, work: RequestInputs, deliver: Callable[[Outcome], None]) -> None:
        """`deliver` is called once with the result, from the engine's thread."""
        self.work = work
        self.deliver = deliver
        self.cancelled = False
        self.inputs: list[ModelInput] = []
        # Rows without a vector, longest first.
        self.waiting: list[int] = []
        self._windows: list[ChunkWindow] = []
        self._vectors: dict[int, Float32] = {}
        self._times = [perf_counter()]

    @property
    def tokenized(self) -> bool:
        """True if the inputs are tokenized."""
        return bool(self.inputs)

    def tokenize(self, processor: Processor) -> None:
        """Tokenize texts and read images, once; RequestError or EmbedpackError if one of them cannot be used."""
        self._times.append(perf_counter())
        inputs = self._process(processor)
        limit = processor.rules.shown_limit(self.work.prompt)
        for number, model_input in enumerate(inputs):
            if model_input.truncated and not self.work.truncate:
                message = f"input[{number}] has more than the {limit}; split it, or pass truncate"
                raise RequestError(ErrorKind.TOO_MANY_TOKENS, message, f"input[{number}]")
        tokens = sum(len(model_input.ids) for model_input in inputs)
        if tokens > self.work.max_tokens:
            message = f"{tokens} tokens; at most {self.work.max_tokens} are taken in one request, send several"
            raise RequestError(ErrorKind.TOO_MANY_TOKENS, message, "input")
        self.inputs = inputs
        self.waiting = np.argsort([-self.length(row) for row in range(len(inputs))], kind="stable").tolist()
        self._times.append(perf_counter())

    def _process(self, processor: Processor) -> list[ModelInput]:
        """Model inputs: one for each item, or the windows of the document of late chunking."""
        if self.work.key.output != CHUNK_SUMS:
            return processor.process(self.work.items, self.work.prompt)
        document = joined(0, [item.text for item in self.work.items if isinstance(item, Text)])
        try:
            self._windows = list(ChunkReader(processor, self.work.prompt).windows([document]))
        except ChunkError as cause:
            raise invalid(f"input[{cause.chunk}]", f"the text {cause.of_chunk}") from cause
        return [window.input for window in self._windows]

    def length(self, row: int) -> int:
        """Number of tokens of an input."""
        return len(self.inputs[row].ids)

    def add(self, row: int, values: Float32) -> bool:
        """Store the output of the graph for a row; True if it was the last."""
        if self.work.key.output == TOKEN_EMBEDDINGS:
            values = self.inputs[row].of_multi_vector(values).copy()  # without padding
        if self._windows:
            values = values[: self._windows[row].chunks].copy()
        self._vectors[row] = values
        return len(self._vectors) == len(self.inputs)

    def result(self) -> JobResult:
        """Result of a job whose rows are all computed."""
        vectors = [self._vectors[row] for row in range(len(self.inputs))]
        if self._windows:
            vectors = self._means(vectors)
        submitted, started, tokenized = self._times
        seconds = {
            "wait": started - submitted,
            "tokenize": tokenized - started,
            "compute": perf_counter() - tokenized,
        }
        return JobResult(vectors, sum(len(model_input.ids) for model_input in self.inputs), seconds)

    def _means(self, sums: Sequence[Float32]) -> list[Float32]:
        """Mean of each chunk, from the sums of all windows."""
        total = ChunkSums(len(self.work.items), sums[0].shape[1])
        for window, of_window in zip(self._windows, sums, strict=True):
            total.add(window, of_window)
        return list(total.means())
