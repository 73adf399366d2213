"""Lists of documents to token ids: a query and a block of documents are one input of models that score whole lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, ItemError, PackError
from embedpack.inputs.items import is_blank
from embedpack.inputs.pair_texts import errors_of_documents, errors_of_query
from embedpack.inputs.templates import Piece, fill, join, tokenize
from embedpack.inputs.tokenizer import ALL_TOKENS, TextTokenizer
from embedpack.pack.score_recipes import ListScores


@dataclass(frozen=True)
class ListBlock:
    """Token ids of a query and consecutive documents, int64 [length].

    `marks`, int64 [documents + 1], are the places of the mark of each document and of the last mark of the query.
    """

    ids: npt.NDArray[np.int64]
    marks: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ListTokens:
    """Blocks of a list; `cut` are the positions of documents that lost their end, `query_cut`: the query lost its."""

    blocks: list[ListBlock]
    cut: list[int]
    query_cut: bool


@dataclass(frozen=True)
class _Short:
    """A text within its limit, and its number of tokens."""

    text: str
    length: int
    cut: bool


class ListEncoder:
    """Encoder of lists by the templates and the limits of a pack.

    Texts next to a slot are tokenized together with it. A text over its limit is the text of its first tokens.
    """

    def __init__(self, tokenizer: TextTokenizer, scores: ListScores) -> None:
        """Check the tokenizer; PackError if it cannot follow the templates."""
        if tokenizer.first_word_differs:
            raise PackError(
                "templates of lists: the tokenizer puts a space before the first word alone, and text follows ids; "
                "export the pack again"
            )
        self._tokenizer = tokenizer
        self._scores = scores

    def encode(self, query: str, documents: Sequence[str], first: int = 0) -> ListTokens:
        """Tokenize texts that have passed `embedpack.inputs.pair_texts`; `first` is the number of the first document.

        Raises:
            ItemError: the tokenizer fails at a document, or nothing is left of it without marks.
            InputError: the same of the query.
            CapacityError: a text does not fit the memory.
        """
        with errors_of_query():
            (short_query,) = self._shortened([query], self._scores.max_query_tokens)
        with errors_of_documents(first):
            short = self._shortened(documents, self._scores.max_document_tokens)
        blocks = []
        for rows in self._blocks(short_query.length, [text.length for text in short]):
            try:
                blocks.append(self._block(short_query.text, [short[row].text for row in rows]))
            except ItemError as cause:
                place = f"documents {first + rows.start} to {first + rows.stop - 1}"
                raise InputError(f"a text of {place}, or the query, {cause.problem}") from cause
        return ListTokens(blocks, [row for row, text in enumerate(short) if text.cut], short_query.cut)

    def _shortened(self, texts: Sequence[str], limit: int) -> list[_Short]:
        """Texts without marks, at most `limit` tokens of each."""
        plain = [without_marks(text, self._scores.stripped) for text in texts]
        for number, text in enumerate(plain):
            if is_blank(text):
                problem = "is empty without the marks of the model that it spells; pass another text"
                raise ItemError("document", number, problem)
        return [
            _Short(self._tokenizer.decode(tokens.ids.tolist()) if tokens.truncated else text, len(tokens.ids),
                   tokens.truncated)
            for text, tokens in zip(plain, self._tokenizer.encode_pieces(plain, limit), strict=True)
        ]  # fmt: skip

    def _blocks(self, query: int, lengths: Sequence[int]) -> Iterator[range]:
        """Rows of the documents of each block, from the numbers of tokens of the query and of each document."""
        start, left = 0, self._scores.max_tokens - 2 * query
        for row, length in enumerate(lengths):
            left -= length
            if row + 1 - start == self._scores.max_documents or left <= self._scores.max_document_tokens:
                yield range(start, row + 1)
                start, left = row + 1, self._scores.max_tokens - 2 * query
        if start < len(lengths):
            yield range(start, len(lengths))

    def _block(self, query: str, documents: Sequence[str]) -> ListBlock:
        scores, values = self._scores, {"query": query, "count": str(len(documents))}
        pieces = fill(scores.before, values)
        for index, document in enumerate(documents):
            pieces += [scores.between] * (index > 0)
            pieces += fill(scores.document, {"document": document, "index": str(index)})
        return self._tokenized([*pieces, *fill(scores.after, values)])

    def _tokenized(self, pieces: Sequence[Piece]) -> ListBlock:
        scores, joined = self._scores, join(pieces)
        found = tokenize(self._tokenizer, joined, ALL_TOKENS)
        # Marks are those of the templates alone: some tokenizers read the same ids out of texts.
        of_template = [np.full(len(ids), isinstance(piece, tuple)) for piece, ids in zip(joined, found, strict=True)]
        ids, is_template = np.concatenate(found), np.concatenate(of_template)
        of_documents = np.flatnonzero((ids == scores.document_mark) & is_template)
        of_query = np.flatnonzero((ids == scores.query_mark) & is_template)[-1:]
        return ListBlock(ids, np.concatenate([of_documents, of_query]))


def without_marks(text: str, marks: Sequence[str]) -> str:
    """The text without any of the strings `marks`, also those that appear where others were removed."""
    if not any(mark in text for mark in marks):
        return text
    kept: list[str] = []
    for character in text:
        kept.append(character)
        for mark in marks:
            if character == mark[-1] and "".join(kept[-len(mark) :]) == mark:
                del kept[-len(mark) :]
                break
    return "".join(kept)
