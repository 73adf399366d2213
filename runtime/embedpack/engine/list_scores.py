"""Scores of lists: a query and a block of documents go through the graph together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpack.engine.call_stats import CallStats
from embedpack.engine.options import ScoreSettings
from embedpack.engine.score_inputs import check_scores
from embedpack.errors import InputError, ItemError, OptionError, PackError
from embedpack.inputs.lists import ListBlock, ListEncoder
from embedpack.inputs.pair_texts import Document
from embedpack.inputs.processor import ModelInput
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.graph_io import MARK_VECTORS
from embedpack.pack.score_recipes import ListScores
from embedpack.vectors.arrays import Float32

Float64 = npt.NDArray[np.float64]
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class ListInputs:
    """Inputs of the graph for a list: one for each block of documents.

    `cut` are the positions of documents over their limit; `query_cut`: the query is over its own.
    """

    inputs: list[ModelInput]
    cut: list[int]
    query_cut: bool
    recipe: ListScores
    folder: Path

    def documents_of(self, row: int) -> int:
        """Number of documents of a block."""
        marks = self.inputs[row].marks
        assert marks is not None
        return len(marks) - 1

    def count(self, stats: CallStats, first: int) -> None:
        """Add the documents, and a query that was cut, to the counts of a call."""
        documents = sum(map(self.documents_of, range(len(self.inputs))))
        stats.add_texts(documents, [stats.name(first + row) for row in self.cut], self.recipe.max_document_tokens)
        if self.query_cut:
            stats.add_texts(1, ["query"], self.recipe.max_query_tokens)

    def kept(self, row: int, output: Float32) -> Float32:
        """Vectors at the marks of a block, float32 [documents + 1, dimensions]."""
        return output[: self.documents_of(row) + 1].copy()

    def scores(self, outputs: Sequence[Float32]) -> Float32:
        """Cosines of the vector of each document and that of the query, float32 [documents].

        The vector of the query is the mean of those of the blocks, weighted by the highest (1 + cosine) / 2 of each.
        PackError if a score is not finite.
        """
        blocks = [output.astype(np.float64) for output in outputs]
        weights = np.array([((1 + _cosines(block[:-1], block[-1])) / 2).max() for block in blocks])
        # Weights that are all 0 would have no mean.
        query = np.average([block[-1] for block in blocks], axis=0, weights=np.maximum(weights, TINY))
        found = np.concatenate([_cosines(block[:-1], query) for block in blocks])
        return check_scores(self.folder, found.astype(np.float32))


class ListReader:
    """Texts to the inputs of the graph; attributes as of `PairReader`."""

    output = MARK_VECTORS

    def __init__(self, folder: Path, recipe: ListScores, tokenizer: TextTokenizer) -> None:
        """Check the templates of the pack `folder`; PackError if the tokenizer cannot follow them."""
        self.over_limit = f"has more than the {recipe.max_document_tokens} tokens of a document"
        self._folder = folder
        self._recipe = recipe
        try:
            self._lists = ListEncoder(tokenizer, recipe)
        except PackError as cause:
            raise PackError(f"{folder}: {cause}") from cause

    def groups(self, documents: Sequence[Document]) -> Iterator[range]:
        """All rows, as the documents of a list are scored together."""
        yield range(len(documents))

    def read(self, query: str, documents: Sequence[Document], settings: ScoreSettings, first: int = 0) -> ListInputs:
        """Tokenize checked texts; `first` is the number of the first document, for error messages.

        Raises:
            ItemError: a document cannot be tokenized, or is truncated against `settings.on_long`.
            InputError: the same of the query; OptionError: there is no place for an instruction.
            CapacityError: a text does not fit the memory.
        """
        if settings.instruction is not None:
            raise OptionError("instruction is of no use: this model takes none; leave it out")
        texts = [document for document in documents if isinstance(document, str)]
        assert len(texts) == len(documents)
        found = self._lists.encode(query, texts, first)
        if settings.on_long == "error":
            self._refuse_truncated(found.cut, first, query=found.query_cut)
        inputs = [_model_input(block) for block in found.blocks]
        return ListInputs(inputs, found.cut, found.query_cut, self._recipe, self._folder)

    def _refuse_truncated(self, cut: Sequence[int], first: int, *, query: bool) -> None:
        remedy = "shorten it, or pass on_long='truncate'"
        if query:
            raise InputError(f"the query has more than its {self._recipe.max_query_tokens} tokens; {remedy}")
        for row in cut[:1]:
            raise ItemError("document", first + row, f"{self.over_limit}; {remedy}")


def _cosines(vectors: Float64, vector: Float64) -> Float64:
    """Cosines of vectors [n, dimensions] with one vector; NaN where a vector has no direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Float64 = vectors @ vector / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector))
    return found


def _model_input(block: ListBlock) -> ModelInput:
    """Input up to the last mark: the graph is causal, so no mark depends on what follows."""
    ids = block.ids[: block.marks[-1] + 1]
    return ModelInput(ids, slice(0, len(ids)), np.ones(len(ids), np.bool_), marks=block.marks)
