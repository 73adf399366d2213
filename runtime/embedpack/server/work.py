"""Work of a request: its inputs as tokens, and the outputs of the graph as the values of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from embedpack.engine.chunk_means import ChunkSums
from embedpack.errors import ChunkError
from embedpack.inputs.chunk_windows import ChunkReader, ChunkWindow
from embedpack.inputs.documents import joined
from embedpack.inputs.items import Item, Text
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.graph_io import CHUNK_SUMS, TOKEN_EMBEDDINGS
from embedpack.pack.input_recipes import Prompt
from embedpack.server.request_errors import ErrorKind, RequestError, invalid
from embedpack.server.served_packs import ForwardKey
from embedpack.vectors.arrays import Float32


class Reading(Protocol):
    """Tokens of a request; `inputs` has one row for each run of the graph."""

    inputs: list[ModelInput]

    def kept(self, row: int, output: Float32) -> Float32:
        """Part of the output of the graph for a row that is kept until all rows are computed; no view of it."""

    def values(self, outputs: Sequence[Float32]) -> list[Float32]:
        """Values of the answer, from what was kept of all rows."""


class Work(Protocol):
    """Inputs of a request, and the options of their runs."""

    @property
    def key(self) -> ForwardKey:
        """Key of the runs."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of all inputs together."""

    @property
    def field(self) -> str:
        """Field of the body that has the inputs."""

    def read(self, processor: Processor) -> Reading:
        """Tokenize texts and read images; RequestError or EmbedpackError if one of them cannot be used."""


@dataclass(frozen=True)
class RequestInputs:
    """Work on vectors; `truncate`: cut texts at the limit of the model or the prompt, else they are refused."""

    key: ForwardKey
    items: Sequence[Item]
    prompt: Prompt
    truncate: bool
    max_tokens: int
    field: str = "input"

    def read(self, processor: Processor) -> Reading:
        """Inputs: one for each item, or the windows of the document of late chunking."""
        reading = self._chunks(processor) if self.key.output == CHUNK_SUMS else self._vectors(processor)
        for number, model_input in enumerate(reading.inputs):
            if model_input.truncated and not self.truncate:
                limit = processor.rules.shown_limit(self.prompt)
                raise too_long(f"{self.field}[{number}]", f"has more than the {limit}; split it, or pass truncate")
        return reading

    def _vectors(self, processor: Processor) -> Reading:
        return VectorReading(processor.process(self.items, self.prompt), multi=self.key.output == TOKEN_EMBEDDINGS)

    def _chunks(self, processor: Processor) -> Reading:
        document = joined(0, [item.text for item in self.items if isinstance(item, Text)])
        try:
            return ChunkReading(list(ChunkReader(processor, self.prompt).windows([document])), len(self.items))
        except ChunkError as cause:
            raise invalid(f"{self.field}[{cause.chunk}]", f"the text {cause.of_chunk}") from cause


class VectorReading:
    """A vector for each input, float32 [dimensions], or those of its tokens, float32 [tokens, dimensions]."""

    def __init__(self, inputs: list[ModelInput], *, multi: bool) -> None:
        self.inputs = inputs
        self._multi = multi

    def kept(self, row: int, output: Float32) -> Float32:
        """The vector, or the vectors without those of padding."""
        return self.inputs[row].of_multi_vector(output).copy() if self._multi else output

    def values(self, outputs: Sequence[Float32]) -> list[Float32]:
        """The vectors."""
        return list(outputs)


class ChunkReading:
    """Windows of a document; the values are the means of its chunks, float32 [dimensions], of any length."""

    def __init__(self, windows: list[ChunkWindow], chunks: int) -> None:
        self.inputs = [window.input for window in windows]
        self._windows = windows
        self._chunks = chunks

    def kept(self, row: int, output: Float32) -> Float32:
        """Sums of the chunks of a window."""
        return output[: self._windows[row].chunks].copy()

    def values(self, outputs: Sequence[Float32]) -> list[Float32]:
        """Mean of each chunk, from the sums of all windows."""
        total = ChunkSums(self._chunks, outputs[0].shape[1])
        for window, sums in zip(self._windows, outputs, strict=True):
            total.add(window, sums)
        return list(total.means())


def too_long(field: str, problem: str) -> RequestError:
    """RequestError of a text over a limit of tokens."""
    return RequestError(ErrorKind.TOO_MANY_TOKENS, f"{field} {problem}", field)
