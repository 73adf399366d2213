"""Inputs of graphs that score documents, and scores from their outputs: what pairs and lists have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from embedpack.engine.call_stats import CallStats
from embedpack.engine.options import ScoreSettings
from embedpack.errors import PackError
from embedpack.inputs.pair_texts import Document
from embedpack.inputs.processor import ModelInput
from embedpack.vectors.arrays import Float32


class ScoreInputs(Protocol):
    """Inputs of the graph for a query and documents."""

    @property
    def inputs(self) -> list[ModelInput]:
        """Inputs, each a run of the graph alone or in a batch."""

    @property
    def cut(self) -> list[int]:
        """Positions of the documents that were truncated."""

    @property
    def query_cut(self) -> bool:
        """True if the query was truncated for all documents."""

    def documents_of(self, row: int) -> int:
        """Number of documents that begin in an input."""

    def count(self, stats: CallStats, first: int) -> None:
        """Add the texts to the counts of a call; `first` is the number of the first document."""

    def kept(self, row: int, output: Float32) -> Float32:
        """Part of the output of the graph for an input that its scores need; no view of an array of a batch."""

    def scores(self, outputs: Sequence[Float32]) -> Float32:
        """Scores of the documents, float32 [documents], from what was kept of each output; PackError for NaN."""


class ScoreReader(Protocol):
    """Texts to the inputs of the graph."""

    @property
    def output(self) -> str:
        """Name of the output of the graph."""

    @property
    def over_limit(self) -> str:
        """Problem of a document that is too long."""

    def groups(self, documents: Sequence[Document]) -> Iterator[range]:
        """Rows of the documents that are read together."""

    def read(self, query: str, documents: Sequence[Document], settings: ScoreSettings, first: int = 0) -> ScoreInputs:
        """Tokenize checked texts; `first` is the number of the first document, for error messages.

        Raises:
            InputError: a text cannot be tokenized, or is truncated against `settings.on_long`.
            OptionError: there is no place for an instruction.
            CapacityError: a text does not fit the memory.
        """


def check_scores(folder: Path, scores: Float32) -> Float32:
    """The scores of a pack in `folder`; PackError if one is not finite."""
    if not np.isfinite(scores).all():
        raise PackError(
            f"{folder}: the graph computed a score that is not a finite number; run: embedpack verify {folder}"
        )
    return scores
