"""A request in the queue: its inputs, their rows that still have to be computed, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from embedpack.errors import EmbedpackError
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.server.request_errors import RequestError
from embedpack.server.work import Reading, Work, too_long
from embedpack.vectors.arrays import Float32


@dataclass(frozen=True)
class JobResult:
    """Result of a request: the values of its `Reading`, the tokens that were read, and seconds by stage."""

    values: list[Float32]
    tokens: int
    seconds: dict[str, float]


Outcome = JobResult | RequestError | EmbedpackError


class Job:
    """A request in the queue. The engine's thread owns all of it but `cancelled`, which the server may set."""

    def __init__(self, work: Work, deliver: Callable[[Outcome], None]) -> None:
        """`deliver` is called once with the result, from the engine's thread."""
        self.work = work
        self.deliver = deliver
        self.cancelled = False
        # Rows that are not in a batch yet, longest first.
        self.waiting: list[int] = []
        # Tokens of the turn of this job, padding included.
        self.turn_tokens = 0
        self._reading: Reading | None = None
        self._outputs: dict[int, Float32] = {}
        self._times = [perf_counter()]

    @property
    def tokenized(self) -> bool:
        """True if the inputs are tokenized."""
        return self._reading is not None

    @property
    def inputs(self) -> list[ModelInput]:
        """Inputs of the graph by row, once they are tokenized."""
        return self._read.inputs

    def tokenize(self, processor: Processor) -> None:
        """Tokenize texts and read images, once; RequestError or EmbedpackError if one of them cannot be used."""
        self._times.append(perf_counter())
        reading = self.work.read(processor)
        tokens = sum(model_input.length for model_input in reading.inputs)
        if tokens > self.work.max_tokens:
            problem = f"has {tokens} tokens; at most {self.work.max_tokens} are taken in one request, send several"
            raise too_long(self.work.field, problem)
        self._reading = reading
        self.wait_again()
        self._times.append(perf_counter())

    def wait_again(self) -> None:
        """Put all rows without an output among those that wait."""
        rows = [row for row in range(len(self.inputs)) if row not in self._outputs]
        self.waiting = sorted(rows, key=self.length, reverse=True)

    def length(self, row: int) -> int:
        """Number of tokens of an input."""
        return self.inputs[row].length

    def add(self, row: int, output: Float32) -> bool:
        """Store the output of the graph for a row; True if it was the last."""
        self._outputs[row] = self._read.kept(row, output)
        return len(self._outputs) == len(self.inputs)

    def result(self) -> JobResult:
        """Result of a job whose rows are all computed; EmbedpackError if the outputs cannot be used."""
        values = self._read.values([self._outputs[row] for row in range(len(self.inputs))])
        submitted, started, tokenized = self._times
        seconds = {
            "wait": started - submitted,
            "tokenize": tokenized - started,
            "compute": perf_counter() - tokenized,
        }
        return JobResult(values, sum(model_input.length for model_input in self.inputs), seconds)

    @property
    def _read(self) -> Reading:
        assert self._reading is not None
        return self._reading
