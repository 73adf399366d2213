"""Scores of pairs: each document goes through the graph together with the query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.engine.call_stats import CallStats
from embedpack.engine.options import ScoreSettings
from embedpack.engine.score_inputs import check_scores
from embedpack.errors import InputError, ItemError, OptionError, PackError
from embedpack.inputs.batching import WINDOW_IMAGES, WINDOW_ITEMS
from embedpack.inputs.images import ImageSource
from embedpack.inputs.items import Image
from embedpack.inputs.pair_texts import Document, check_query
from embedpack.inputs.pairs import PairEncoder, PairTokens
from embedpack.inputs.processor import ModelInput
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.graph_io import SCORE
from embedpack.pack.score_recipes import PairScores
from embedpack.vectors.arrays import Float32

# Characters of the documents whose tokens are in memory at a time; a longer document is alone.
GROUP_CHARACTERS = 4_000_000
# Memory of an image's patches, in characters of text.
IMAGE_CHARACTERS = GROUP_CHARACTERS // WINDOW_IMAGES


def sigmoid(logits: Float32) -> Float32:
    """1 / (1 + exp(-x)), exact for large negative x too."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))).astype(np.float32)


ACTIVATIONS: Mapping[str, Callable[[Float32], Float32]] = {"none": lambda logits: logits, "sigmoid": sigmoid}


@dataclass(frozen=True)
class PairInputs:
    """Inputs of the graph for some documents: one for each, or one for each window of a long one.

    `rows`, int64 [inputs], ascending, are the positions of their documents.
    """

    inputs: list[ModelInput]
    rows: npt.NDArray[np.int64]
    recipe: PairScores
    folder: Path
    query_cut: bool = False

    @property
    def cut(self) -> list[int]:
        """Positions of the documents of pairs that were truncated."""
        return [int(self.rows[row]) for row in np.flatnonzero(self._is_first) if self.inputs[row].truncated]

    def documents_of(self, row: int) -> int:
        """1 for the first input of a document, 0 for the others."""
        return int(row == 0 or self.rows[row] > self.rows[row - 1])

    def count(self, stats: CallStats, first: int) -> None:
        """Add the documents to the counts of a call."""
        names = [stats.name(first + number) for number in self.cut]
        stats.add_texts(int(self._is_first.sum()), names, self.recipe.max_tokens)

    def kept(self, row: int, output: Float32) -> Float32:
        """The logit."""
        return output

    def scores(self, outputs: Sequence[Float32]) -> Float32:
        """Scores of the documents, float32 [documents], from the logits of all inputs.

        The score of a document is the highest of its windows. PackError if one is not finite.
        """
        logits = np.array(outputs, np.float32)
        highest = np.maximum.reduceat(logits, np.flatnonzero(self._is_first)) + np.float32(self.recipe.offset)
        return ACTIVATIONS[self.recipe.activation](check_scores(self.folder, highest))

    @property
    def _is_first(self) -> npt.NDArray[np.bool_]:
        """True for the first input of each document, [inputs]."""
        return np.diff(self.rows, prepend=-1) > 0


# Reads an image as the tokens that stand in the place of a document.
ImageReader: TypeAlias = Callable[[Image], ModelInput]


class PairReader:
    """Texts to the inputs of the graph.

    Attributes:
        output: output of the graph.
        over_limit: problem of a document that is too long.
    """

    output = SCORE

    def __init__(
        self, folder: Path, recipe: PairScores, tokenizer: TextTokenizer, images: ImageReader | None = None
    ) -> None:
        """Check the template of the pairs in the pack `folder`; PackError if the tokenizer cannot follow it.

        `images` reads the images of a pack that takes them.
        """
        self._images = images
        self.over_limit = (
            f"and the query have more than the {recipe.max_tokens} tokens of a pair, or one of them is over its own "
            "limit"
        )
        self._folder = folder
        self._recipe = recipe
        try:
            self._pairs = PairEncoder(tokenizer, recipe)
        except PackError as cause:
            raise PackError(f"{folder}: {cause}") from cause

    def groups(self, documents: Sequence[Document]) -> Iterator[range]:
        """Rows of consecutive documents whose tokens and images fit the memory together."""
        start = characters = 0
        for row, document in enumerate(documents):
            size = len(document) if isinstance(document, str) else IMAGE_CHARACTERS
            characters += size
            if row > start and (row - start == WINDOW_ITEMS or characters > GROUP_CHARACTERS):
                yield range(start, row)
                start, characters = row, size
        yield range(start, len(documents))

    def read(self, query: str, documents: Sequence[Document], settings: ScoreSettings, first: int = 0) -> PairInputs:
        """Tokenize checked texts and read images; `first` is the number of the first document, for error messages.

        Raises:
            ItemError: a document cannot be read, or is truncated against `settings.on_long`.
            InputError: the query leaves no room for a document; OptionError: there is no place for an instruction.
            CapacityError: a text does not fit the memory.
        """
        values = {"query": query} | self._instruction(settings.instruction)
        of_texts = iter(self._texts(values, documents, first))
        pairs = [
            next(of_texts) if isinstance(document, str) else [self._image(values, document, first + row)]
            for row, document in enumerate(documents)
        ]
        owners = np.repeat(np.arange(len(pairs)), [len(windows) for windows in pairs])
        inputs = [window for windows in pairs for window in windows]
        found = PairInputs(inputs, owners, self._recipe, self._folder)
        if settings.on_long == "error":
            for number in found.cut[:1]:
                problem = f"{self.over_limit}; shorten it, or pass on_long='truncate'"
                raise ItemError("document", first + number, problem)
        return found

    def _texts(self, values: Mapping[str, str], documents: Sequence[Document], first: int) -> list[list[ModelInput]]:
        """Inputs of each document that is a text."""
        rows = [row for row, document in enumerate(documents) if isinstance(document, str)]
        texts = [document for document in documents if isinstance(document, str)]
        if not texts:
            return []
        try:
            pairs = self._pairs.encode(values, texts)
        except ItemError as cause:
            raise ItemError("document", first + rows[cause.number], cause.problem) from cause
        return [[_model_input(window) for window in windows] for windows in pairs]

    def _image(self, values: Mapping[str, str], document: ImageSource, number: int) -> ModelInput:
        """Input of a document that is an image."""
        assert self._images is not None
        try:
            image = self._images(Image(number, document))
        except InputError as cause:
            raise ItemError("document", number, f"cannot be read: {cause}") from cause
        pair = self._pairs.encode_image(values, image.ids)
        start = pair.image_place + image.image_start
        return replace(_model_input(pair), image=image.image, image_start=start)

    def _instruction(self, instruction: str | None) -> dict[str, str]:
        if instruction is None:
            return {}
        if self._recipe.instruction is None:
            raise OptionError("instruction is of no use: this model takes none; leave it out")
        return {"instruction": check_query(instruction, "instruction")}


def _model_input(pair: PairTokens) -> ModelInput:
    length = len(pair.ids)
    return ModelInput(pair.ids, slice(0, length), np.ones(length, np.bool_), truncated=pair.truncated, types=pair.types)
