"""Work of a request that scores documents for a query: pairs, a list, or multi-vectors by MaxSim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.engine.graph_scores import open_reader
from embedpack.engine.options import ScoreSettings
from embedpack.engine.score_inputs import ScoreInputs
from embedpack.errors import InputError, ItemError
from embedpack.inputs.items import Text
from embedpack.inputs.pair_texts import Document
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.score_recipes import ListScores, PairScores
from embedpack.server.request_errors import invalid
from embedpack.server.served_packs import ForwardKey
from embedpack.server.work import Reading, too_long
from embedpack.vectors.arrays import Float32

FIELD = "documents"


@dataclass(frozen=True)
class RankTexts:
    """Checked texts of a request; `truncate`: cut those that are too long, else they are refused."""

    query: str
    documents: Sequence[Document]
    instruction: str | None
    truncate: bool


@dataclass(frozen=True)
class ScoreWork:
    """Scores of pairs or of a list by the recipe of the pack in `folder`."""

    key: ForwardKey
    texts: RankTexts
    recipe: PairScores | ListScores
    folder: Path
    max_tokens: int
    field: str = FIELD

    def read(self, processor: Processor) -> Reading:
        """Inputs as of `ScoreInputs`."""
        reader = open_reader(self.folder, self.recipe, processor)
        texts = self.texts
        try:
            found = reader.read(texts.query, texts.documents, ScoreSettings(instruction=texts.instruction))
        except ItemError as cause:
            raise invalid(f"{FIELD}[{cause.number}]", f"the document {cause.problem}") from cause
        except InputError as cause:
            raise invalid("query", str(cause)) from cause
        if not texts.truncate:
            if found.query_cut:
                raise too_long("query", "has more tokens than the limit of queries; shorten it, or pass truncate")
            for document in found.cut[:1]:
                raise too_long(f"{FIELD}[{document}]", f"{reader.over_limit}; shorten it, or pass truncate")
        return ScoreReading(found)


class ScoreReading:
    """Inputs of pairs or of a list; the value is one array of scores, float32 [documents]."""

    def __init__(self, found: ScoreInputs) -> None:
        self.inputs = found.inputs
        self._found = found

    def kept(self, row: int, output: Float32) -> Float32:
        """The logit, or the vectors at the marks of a block."""
        return self._found.kept(row, output)

    def values(self, outputs: Sequence[Float32]) -> list[Float32]:
        """Scores of the documents; PackError if one is not finite."""
        return [self._found.scores(outputs)]


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
        texts = [Text(number, text) for number, text in enumerate(self.texts.documents) if isinstance(text, str)]
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
