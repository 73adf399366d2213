"""Work of a request that scores documents for a query: pairs, or multi-vectors by MaxSim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairInputs, PairReader
from embedpack.errors import InputError, ItemError
from embedpack.inputs.items import Text
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.score_recipes import PairScores
from embedpack.server.request_errors import invalid
from embedpack.server.served_packs import ForwardKey
from embedpack.server.work import Reading, too_long
from embedpack.vectors.arrays import Float32

FIELD = "documents"


@dataclass(frozen=True)
class RankTexts:
    """Checked texts of a request; `truncate`: cut those that are too long, else they are refused."""

    query: str
    documents: Sequence[str]
    instruction: str | None
    truncate: bool


@dataclass(frozen=True)
class PairWork:
    """Scores of pairs by the recipe of the pack in `folder`."""

    key: ForwardKey
    texts: RankTexts
    scores: PairScores
    folder: Path
    max_tokens: int
    field: str = FIELD

    def read(self, processor: Processor) -> Reading:
        """An input for each document, or for each window of a long one."""
        reader = PairReader(self.folder, self.scores, processor.tokenizer)
        texts = self.texts
        try:
            pairs = reader.read(texts.query, texts.documents, ScoreSettings(instruction=texts.instruction))
        except ItemError as cause:
            raise invalid(f"{FIELD}[{cause.number}]", f"the document {cause.problem}") from cause
        except InputError as cause:
            raise invalid("query", str(cause)) from cause
        for model_input, document in zip(pairs.inputs, pairs.documents, strict=True):
            if model_input.truncated and not texts.truncate:
                problem = f"and the query have more than the {reader.max_tokens} tokens of a pair; shorten it, or pass "
                raise too_long(f"{FIELD}[{document}]", f"{problem}truncate")
        return PairReading(reader, pairs)


class PairReading:
    """Inputs of pairs; the value is one array of scores, float32 [documents]."""

    def __init__(self, reader: PairReader, pairs: PairInputs) -> None:
        self.inputs = pairs.inputs
        self._reader = reader
        self._pairs = pairs

    def kept(self, row: int, output: Float32) -> Float32:
        """The logit."""
        return output

    def values(self, outputs: Sequence[Float32]) -> list[Float32]:
        """Scores of the documents; PackError if one is not finite."""
        return [self._reader.scores(np.array(outputs, np.float32), self._pairs)]


@dataclass(frozen=True)
class MaxSimWork:
    """MaxSim of the multi-vectors of a query and of documents, each under its prompt.

    `per_query_token`: divided by the number of query vectors.
    """

    key: ForwardKey
    texts: RankTexts
    query_prompt: Prompt
    document_prompt: Prompt
    per_query_token: bool
    max_tokens: int
    field: str = FIELD

    def read(self, processor: Processor) -> Reading:
        """The query, then the documents."""
        query = processor.process([Text(0, self.texts.query)], self.query_prompt)
        texts = [Text(number, text) for number, text in enumerate(self.texts.documents)]
        try:
            documents = processor.process(texts, self.document_prompt)
        except ItemError as cause:
            raise invalid(f"{FIELD}[{cause.number}]", f"the document {cause.problem}") from cause
        for number, model_input in enumerate(documents):
            if model_input.truncated and not self.texts.truncate:
                limit = processor.rules.shown_limit(self.document_prompt)
                raise too_long(f"{FIELD}[{number}]", f"has more than the {limit}; shorten it, or pass truncate")
        return MaxSimReading([*query, *documents], per_query_token=self.per_query_token)


class MaxSimReading:
    """Inputs of multi-vectors, the query first; the value is one array of scores, float32 [documents]."""

    def __init__(self, inputs: list[ModelInput], *, per_query_token: bool) -> None:
        self.inputs = inputs
        self._per_query_token = per_query_token

    def kept(self, row: int, output: Float32) -> Float32:
        """The vectors without those of padding."""
        return self.inputs[row].of_multi_vector(output).copy()

    def values(self, outputs: Sequence[Float32]) -> list[Float32]:
        """For each document the sum, over the query's vectors, of the highest dot product."""
        query, *documents = outputs
        sums = np.array([(query @ vectors.T).max(axis=1).sum() for vectors in documents], np.float32)
        return [sums / np.float32(len(query) if self._per_query_token else 1)]
