"""Scores by a loaded variant, of pairs or of lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedpack.engine.call_stats import CallStats
from embedpack.engine.encoder import Batch, Encoder
from embedpack.engine.list_scores import ListReader
from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairReader
from embedpack.engine.score_inputs import ScoreInputs, ScoreReader
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.pair_texts import Document
from embedpack.inputs.processor import Processor
from embedpack.pack.score_recipes import ListScores, PairScores
from embedpack.vectors.arrays import Float32


def open_reader(folder: Path, recipe: PairScores | ListScores, processor: Processor) -> ScoreReader:
    """Reader of queries and documents of a pack in `folder`; PackError if the tokenizer cannot follow the recipe."""
    if isinstance(recipe, ListScores):
        return ListReader(folder, recipe, processor.tokenizer)
    images = None if processor.image is None else lambda image: processor.process([image], "")[0]
    return PairReader(folder, recipe, processor.tokenizer, images)


class GraphScorer:
    """Scores by a loaded variant: of a document alone if the recipe is one of pairs, else of the whole list."""

    def __init__(self, reader: ScoreReader, encoder: Encoder, adapter: str | None = None) -> None:
        self._reader = reader
        self._encoder = encoder
        self._adapter = adapter

    def score(self, query: str, documents: Sequence[Document], settings: ScoreSettings, stats: CallStats) -> Float32:
        """Scores of checked texts, float32 [documents]; counts are added to `stats`.

        Errors as of `ScoreReader`; CapacityError also if an input does not fit the memory.
        """
        parts = []
        for rows in self._reader.groups(documents):
            inputs = self._reader.read(query, documents[rows.start : rows.stop], settings, rows.start)
            inputs.count(stats, rows.start)
            parts.append(inputs.scores(self._outputs(inputs, stats)))
        return np.concatenate(parts)

    def _outputs(self, scored: ScoreInputs, stats: CallStats) -> list[Float32]:
        """Kept parts of the outputs of the graph, in the order of the inputs."""
        groups = token_budget_batches([len(each.ids) for each in scored.inputs], self._encoder.token_budget)
        batches = (Batch(rows, [scored.inputs[row] for row in rows]) for rows in groups)
        kept: dict[int, Float32] = {}
        for batch, outputs in self._encoder.compute(batches, self._reader.output, self._adapter):
            rows = batch.rows.tolist()
            kept |= {row: scored.kept(row, output) for row, output in zip(rows, outputs, strict=True)}
            stats.advance(sum(map(scored.documents_of, rows)))
        return [kept[row] for row in range(len(scored.inputs))]
