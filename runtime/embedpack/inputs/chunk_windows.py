"""Documents to model inputs with the tokens of each chunk; long documents in windows that overlap.

A window has as many tokens as the model takes: those in front of every text (start token, prompt), tokens of the
document, and those behind every text. Windows overlap by a quarter, at most OVERLAP tokens, and the last one ends with
the document. Of the tokens of an overlap, the first half counts in the earlier window, the rest in the later one: each
token counts once, where it has more context. Tokens in front of the text count for the first chunk, those behind it for
the last one, so that a document of one chunk has the vector of its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedpack.errors import ChunkError, InputError, ItemError
from embedpack.inputs.documents import Document
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.inputs.tokens import Tokens
from embedpack.pack.input_recipes import Prompt
from embedpack.vectors.arrays import Float32

OVERLAP = 512
# Weights of one model input, chunks x tokens: 32 MB. With more chunks, the same tokens run again for the rest of them.
MAX_WEIGHTS = 2**23

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChunkWindow:
    """A model input with the tokens of some chunks of a document.

    Attributes:
        input: token ids, and the tokens of each chunk.
        first: position of the first of these chunks among those of all documents.
        ended: number of them without tokens in later windows.
    """

    input: ModelInput
    first: int
    ended: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return 0 if self.input.chunks is None else len(self.input.chunks)


@dataclass(frozen=True)
class ChunkedTokens:
    """Tokens of a document.

    Attributes:
        tokens: all tokens.
        body: range of the tokens that the document's text gave.
        spans: begin and end of the tokens of each chunk, int64 [chunks, 2].
    """

    tokens: Tokens
    body: range
    spans: Places

    def windows(self, limit: int, first: int) -> Iterator[ChunkWindow]:
        """Model inputs of at most `limit` tokens; `first` is the position of the first chunk."""
        total, head, end = len(self.tokens.ids), self.body.start, self.body.stop
        room = limit - total + len(self.body)
        starts = [head]
        if len(self.body) > room:
            starts = [*range(head, end - room, room - min(OVERLAP, room // 4)), end - room]
        cuts = [0, *((start + room + after) // 2 for start, after in pairwise(starts)), total]
        for start, counted in zip(starts, pairwise(cuts), strict=True):
            rows = np.r_[0:head, start : min(start + room, end), end:total]
            yield from self._window(rows, counted, head - start, first)

    def _window(self, rows: Places, counted: tuple[int, int], moved: int, first: int) -> Iterator[ChunkWindow]:
        """The tokens `rows`; those in the range `counted` count, and have moved by `moved` places."""
        begins, ends = self.spans.T
        some = range(np.searchsorted(ends, counted[0], "right"), np.searchsorted(begins, counted[1], "left"))
        step = max(1, MAX_WEIGHTS // len(rows))
        for start in some[::step]:
            group = slice(start, min(start + step, some.stop))
            taken = np.clip(self.spans[group], *counted) + moved
            window = ModelInput(self.tokens.ids[rows], slice(0, len(rows)), self.tokens.special[rows], chunks=taken)
            yield ChunkWindow(window, first + start, int((ends[group] <= counted[1]).sum()))


@dataclass(frozen=True)
class ChunkReader:
    """Reader of documents under a prompt."""

    processor: Processor
    prompt: Prompt

    def windows(self, documents: Sequence[Document]) -> Iterator[ChunkWindow]:
        """Windows of documents, in their order.

        Raises:
            ItemError: a document cannot be tokenized, or has too many tokens; ChunkError: a chunk has none.
            InputError: the prompt leaves no room for a text.
            CapacityError: a document does not fit the memory.
        """
        first = 0
        limit = self.processor.rules.limit(self.prompt)
        for document in documents:
            yield from self._tokens(document, limit).windows(limit, first)
            first += len(document)

    def _tokens(self, document: Document, limit: int) -> ChunkedTokens:
        tokens = self.processor.tokenizer.encode_whole(document.text, self.prompt.prefix, document.number)
        assert tokens.offsets is not None
        ends = tokens.offsets[:, 1]
        # Tokens of the prompt have no place in the text.
        of_text = np.flatnonzero(~tokens.special & (ends > 0))
        if not len(of_text):
            raise ItemError("document", document.number, "has no token; leave it out")
        body = range(of_text[0], of_text[-1] + 1)
        if limit <= len(ends) - len(body):
            raise InputError(
                f"the prompt and the special tokens have {len(ends) - len(body)} tokens, of at most {limit}: there is "
                "no room for a text; pass prompt_name=''"
            )
        last = np.maximum.accumulate(ends[body.start : body.stop] - 1)
        spans = body.start + np.searchsorted(last, document.spans, "left")
        for row in np.flatnonzero(spans[:, 0] == spans[:, 1])[:1]:
            raise ChunkError(document.number, int(row), "has no token; leave it out")
        spans[0, 0], spans[-1, 1] = 0, len(ends)
        return ChunkedTokens(tokens, body, spans)


def chunk_weights(inputs: Sequence[ModelInput], longest: int) -> Float32:
    """Input of the graph, float32 [batch, chunks, longest], of windows: 1 for the tokens of each chunk, else 0."""
    spans = [item.chunks for item in inputs if item.chunks is not None]
    weights = np.zeros((len(inputs), max(map(len, spans)), longest), np.float32)
    for row, chunks in enumerate(spans):
        for number, (begin, end) in enumerate(chunks):
            weights[row, number, begin:end] = 1
    return weights
