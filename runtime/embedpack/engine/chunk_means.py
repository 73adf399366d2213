"""Late chunking: the mean of the last hidden states of each chunk's tokens, in the context of the whole document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from embedpack.engine.call_stats import CallStats
from embedpack.engine.encoder import Batch, Encoder
from embedpack.engine.options import EncodeOptions
from embedpack.host.memory import check_memory
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.chunk_windows import ChunkReader, ChunkWindow
from embedpack.inputs.documents import Document
from embedpack.pack.graph_io import CHUNK_SUMS
from embedpack.vectors.arrays import Float32

# Characters of the documents whose tokens are in memory at a time; a longer document is alone.
GROUP_CHARACTERS = 4_000_000


def document_groups(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """Consecutive documents that fit the memory together."""
    start = characters = 0
    for row, document in enumerate(documents):
        characters += len(document.text)
        if characters > GROUP_CHARACTERS and row > start:
            yield documents[start:row]
            start, characters = row, len(document.text)
    yield documents[start:]


class ChunkSums:
    """Sums of the last hidden states of chunks, window by window, and the numbers of their tokens."""

    def __init__(self, chunks: int, dimensions: int) -> None:
        """Start at zero; CapacityError if the sums of this number of chunks do not fit the memory."""
        check_memory(chunks * dimensions * 4, f"vectors of {chunks} chunks", "pass fewer documents, or longer chunks")
        self._sums, self._counts = np.zeros((chunks, dimensions), np.float32), np.zeros((chunks, 1), np.float32)

    def add(self, window: ChunkWindow, sums: Float32) -> None:
        """Add the output of the graph for a window, [chunks or more, dimensions]."""
        assert window.input.chunks is not None
        place = slice(window.first, window.first + len(window.input.chunks))
        self._sums[place] += sums[: len(window.input.chunks)]
        self._counts[place] += np.diff(window.input.chunks)

    def means(self) -> Float32:
        """Mean of each chunk, float32 [chunks, dimensions], after all windows."""
        return self._sums / self._counts


def chunk_means(
    encoder: Encoder, documents: Sequence[Document], dimensions: int, options: EncodeOptions, stats: CallStats
) -> Float32:
    """Mean of each chunk, float32 [chunks of all documents, dimensions], in their order.

    Raises:
        InputError: a document, a chunk or the prompt cannot be used, as `ChunkReader.windows`.
        CapacityError: the means, or a document, do not fit the memory.
    """
    total = ChunkSums(sum(map(len, documents)), dimensions)
    windows = list(ChunkReader(encoder.processor, options.prompt).windows(documents))
    groups = token_budget_batches([len(window.input.ids) for window in windows], encoder.token_budget)
    batches = (Batch(rows, [windows[row].input for row in rows]) for rows in groups)
    for batch, values in encoder.compute(batches, CHUNK_SUMS, options.adapter):
        for row, of_chunks in zip(batch.rows, values, strict=True):
            total.add(windows[row], of_chunks)
        stats.advance(sum(windows[row].ended for row in batch.rows))
    stats.texts += len(documents)
    return total.means()
