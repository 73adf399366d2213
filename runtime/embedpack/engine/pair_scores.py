"""Scores of pairs: each document goes through the graph together with the query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpack.engine.call_stats import CallStats
from embedpack.engine.encoder import Batch, Encoder
from embedpack.engine.options import ScoreSettings
from embedpack.errors import ItemError, OptionError, PackError
from embedpack.inputs.batching import WINDOW_ITEMS, token_budget_batches
from embedpack.inputs.items import Text
from embedpack.inputs.pair_texts import check_query
from embedpack.inputs.pairs import PairEncoder, PairTokens
from embedpack.inputs.processor import ModelInput
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.graph_io import SCORE
from embedpack.pack.score_recipes import PairScores
from embedpack.vectors.arrays import Float32

# Characters of the documents whose tokens are in memory at a time; a longer document is alone.
GROUP_CHARACTERS = 4_000_000


def sigmoid(logits: Float32) -> Float32:
    """1 / (1 + exp(-x)), exact for large negative x too."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))).astype(np.float32)


ACTIVATIONS: Mapping[str, Callable[[Float32], Float32]] = {"none": lambda logits: logits, "sigmoid": sigmoid}


@dataclass(frozen=True)
class PairInputs:
    """Inputs of the graph for some documents: one for each, or one for each window of a long one.

    `documents`, int64 [inputs], ascending, are the positions of their documents.
    """

    inputs: list[ModelInput]
    documents: npt.NDArray[np.int64]

    @property
    def is_first(self) -> npt.NDArray[np.bool_]:
        """True for the first input of each document, [inputs]."""
        return np.diff(self.documents, prepend=-1) > 0


class PairReader:
    """Texts to the inputs of the graph, and its outputs to scores."""

    def __init__(self, folder: Path, scores: PairScores, tokenizer: TextTokenizer) -> None:
        """Check the template of the pairs in the pack `folder`; PackError if the tokenizer cannot follow it."""
        self.max_tokens = scores.max_tokens
        self._folder = folder
        self._scores = scores
        try:
            self._pairs = PairEncoder(tokenizer, scores)
        except PackError as cause:
            raise PackError(f"{folder}: {cause}") from cause

    def read(self, query: str, documents: Sequence[str], settings: ScoreSettings, first: int = 0) -> PairInputs:
        """Tokenize checked texts; `first` is the number of the first document, for error messages.

        Raises:
            ItemError: a document cannot be tokenized, or is truncated against `settings.on_long`.
            InputError: the query leaves no room for a document; OptionError: there is no place for an instruction.
            CapacityError: a text does not fit the memory.
        """
        values = {"query": query} | self._instruction(settings.instruction)
        pairs = self._pairs.encode(values, documents, first)
        if settings.on_long == "error":
            self._refuse_truncated(pairs, first)
        owners = np.repeat(np.arange(len(pairs)), [len(windows) for windows in pairs])
        return PairInputs([_model_input(window) for windows in pairs for window in windows], owners)

    def scores(self, logits: Float32, inputs: PairInputs) -> Float32:
        """Scores of the documents, float32 [documents], from the outputs of the graph for all inputs.

        The score of a document is the highest of its windows. PackError if one is not finite.
        """
        highest = np.maximum.reduceat(logits, np.flatnonzero(inputs.is_first)) + np.float32(self._scores.offset)
        if not np.isfinite(highest).all():
            raise PackError(
                f"{self._folder}: the graph computed a score that is not a finite number; run: embedpack verify "
                f"{self._folder}"
            )
        return ACTIVATIONS[self._scores.activation](highest)

    def _instruction(self, instruction: str | None) -> dict[str, str]:
        if instruction is None:
            return {}
        if self._scores.instruction is None:
            raise OptionError("instruction is of no use: this model takes none; leave it out")
        return {"instruction": check_query(instruction, "instruction")}

    def _refuse_truncated(self, pairs: Sequence[tuple[PairTokens, ...]], first: int) -> None:
        for number, windows in enumerate(pairs, first):
            if windows[0].truncated:
                problem = (
                    f"and the query have more than the {self.max_tokens} tokens of a pair, or one of them is over its "
                    "own limit; shorten it, or pass on_long='truncate'"
                )
                raise ItemError("document", number, problem)


class PairScorer:
    """Scores by a loaded variant; the score of a document does not depend on the others."""

    def __init__(self, reader: PairReader, encoder: Encoder, adapter: str | None = None) -> None:
        self._reader = reader
        self._encoder = encoder
        self._adapter = adapter

    def score(self, query: str, documents: Sequence[str], settings: ScoreSettings, stats: CallStats) -> Float32:
        """Scores of checked texts, float32 [documents]; counts are added to `stats`.

        Errors as of `PairReader`; CapacityError also if a pair does not fit the memory.
        """
        parts = []
        for rows in _groups(documents):
            inputs = self._reader.read(query, documents[rows.start : rows.stop], settings, rows.start)
            heads = [inputs.inputs[row] for row in np.flatnonzero(inputs.is_first)]
            stats.add([Text(row, "") for row in rows], heads, self._reader.max_tokens)
            parts.append(self._reader.scores(self._logits(inputs, stats), inputs))
        return np.concatenate(parts)

    def _logits(self, pairs: PairInputs, stats: CallStats) -> Float32:
        """Outputs of the graph, float32 [inputs]."""
        groups = token_budget_batches([len(each.ids) for each in pairs.inputs], self._encoder.token_budget)
        batches = (Batch(rows, [pairs.inputs[row] for row in rows]) for rows in groups)
        logits, is_first = np.empty(len(pairs.inputs), np.float32), pairs.is_first
        for batch, values in self._encoder.compute(batches, SCORE, self._adapter):
            logits[batch.rows] = values
            stats.advance(int(is_first[batch.rows].sum()))
        return logits


def _groups(documents: Sequence[str]) -> Iterator[range]:
    """Rows of consecutive documents whose tokens fit the memory together."""
    start = characters = 0
    for row, document in enumerate(documents):
        characters += len(document)
        if row > start and (row - start == WINDOW_ITEMS or characters > GROUP_CHARACTERS):
            yield range(start, row)
            start, characters = row, len(document)
    yield range(start, len(documents))


def _model_input(pair: PairTokens) -> ModelInput:
    length = len(pair.ids)
    return ModelInput(pair.ids, slice(0, length), np.ones(length, np.bool_), truncated=pair.truncated, types=pair.types)
