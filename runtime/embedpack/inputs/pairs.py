"""Pairs of a query and a document to token ids, for models that score them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, PackError
from embedpack.inputs.pair_texts import errors_of_documents, errors_of_query
from embedpack.inputs.templates import Piece, fill, shortened, tokenize
from embedpack.inputs.tokenizer import ALL_TOKENS, TextTokenizer
from embedpack.pack.score_recipes import PairScores, Slot

QUERY, DOCUMENT = Slot(slot="query"), Slot(slot="document")


@dataclass(frozen=True)
class PairTokens:
    """Token ids and token types of a pair, int64 [length] each; `truncated`: tokens were cut off.

    `image_place`: index of the first token of an image as document.
    """

    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]
    truncated: bool
    image_place: int = 0


class PairEncoder:
    """Encoder of pairs by the template and the limits of a pack.

    Texts next to a slot are tokenized, and cut, together with it: a segment reaches from ids to ids. The ids `after` of
    the tokenizer stand behind every sequence.
    """

    def __init__(self, tokenizer: TextTokenizer, scores: PairScores) -> None:
        """Check the template against the tokenizer; PackError if it cannot be followed."""
        self._tokenizer = tokenizer
        self._scores = scores
        self._segments = [tuple(run) for _, run in groupby(scores.parts, lambda part: isinstance(part, tuple))]
        self._after = np.array(tokenizer.rules.after, np.int64)
        self._query, self._document = self._segment_of(QUERY), self._segment_of(DOCUMENT)
        for problem in self._problems():
            raise PackError(f"template of pairs: {problem}; export the pack again")

    def encode(
        self, values: Mapping[str, str], documents: Sequence[str], first: int = 0
    ) -> list[tuple[PairTokens, ...]]:
        """Tokenize the texts of the other slots, `values`, with each of the documents: one pair, or one a window.

        All texts have passed `embedpack.inputs.pair_texts`. The instruction may be left out. `first` is the number of
        the first document, for error messages.

        Raises:
            ItemError: the tokenizer fails at a document.
            InputError: the query leaves no room for a document, or the tokenizer fails at another text.
            CapacityError: a text does not fit the memory.
        """
        with errors_of_query():
            query = self._shortened(QUERY, values["query"])
        shorter = [self._shorter_document(text, number) for number, text in enumerate(documents, first)]
        cut = [query != values["query"] or short != text for short, text in zip(shorter, documents, strict=True)]
        filled = {"instruction": self._scores.instruction or "", **values, "query": query}
        rows = range(len(self._segments))
        with errors_of_query():
            alike = {row: self._alone(row, filled) for row in rows if row != self._document}
        # One more than the query has decides which of the two is longer; windows need all tokens.
        limit = max([self._scores.max_tokens, *map(len, alike.values())]) + 1
        limit = limit if self._scores.overlap is None else ALL_TOKENS
        with errors_of_documents(first):
            found = tokenize(self._tokenizer, [self._with_document(filled, text) for text in shorter], limit)
        return [
            tuple(self._pair([alike.get(row, part) for row in rows], is_cut) for part in self._windows(ids, alike))
            for ids, is_cut in zip(found, cut, strict=True)
        ]

    def encode_image(self, values: Mapping[str, str], image: npt.NDArray[np.int64]) -> PairTokens:
        """Tokenize the texts of the other slots with a document of token ids; the end of the whole is cut off.

        Errors of the query as of `encode`; InputError also if the ids do not fit.
        """
        with errors_of_query():
            filled = {**values, "query": self._shortened(QUERY, values["query"])}
        place = self._scores.parts.index(DOCUMENT)
        with errors_of_query():
            before, after = (
                np.concatenate([np.zeros(0, np.int64), *tokenize(self._tokenizer, fill(parts, filled), ALL_TOKENS)])
                for parts in (self._scores.parts[:place], self._scores.parts[place + 1 :])
            )
        room = self._scores.max_tokens - len(self._after)
        if len(before) + len(image) > room:
            raise InputError(
                f"an image has {len(image)} tokens, a pair at most {self._scores.max_tokens}; pass a smaller image"
            )
        whole = np.concatenate([before, image, after])
        ids = np.concatenate([whole[:room], self._after])
        truncated = len(whole) > room or filled["query"] != values["query"]
        return PairTokens(ids, np.zeros(len(ids), np.int64), truncated, len(before))

    def _limit(self, slot: Slot) -> int | None:
        """Maximum length of a query or a document."""
        return self._scores.max_query_tokens if slot == QUERY else self._scores.max_document_tokens

    def _shortened(self, slot: Slot, text: str) -> str:
        """A text within its limit, if it is tokenized together with others; alone, its token ids are cut."""
        return text if (slot,) in self._segments else shortened(self._tokenizer, text, self._limit(slot))

    def _shorter_document(self, text: str, number: int) -> str:
        with errors_of_documents(number):
            return self._shortened(DOCUMENT, text)

    def _alone(self, row: int, values: Mapping[str, str]) -> npt.NDArray[np.int64]:
        """Token ids of a segment without the document."""
        found = tokenize(self._tokenizer, fill(self._segments[row], values), ALL_TOKENS)
        return found[0] if found else np.zeros(0, np.int64)

    def _with_document(self, values: Mapping[str, str], text: str) -> Piece:
        """Text of the segment with the document."""
        return next(iter(fill(self._segments[self._document], {**values, "document": text})), "")

    def _windows(
        self, document: npt.NDArray[np.int64], alike: Mapping[int, npt.NDArray[np.int64]]
    ) -> list[npt.NDArray[np.int64]]:
        """Parts of equal length of a document that is too long, the last at its end; else the document alone."""
        if self._scores.overlap is None:
            return [document]
        others = sum(self._within_limit(row, len(ids)) for row, ids in alike.items())
        room = self._scores.max_tokens - len(self._after) - others
        length = self._within_limit(self._document, len(document))
        # Without room for any token, the pair is refused.
        if length <= room or room < 1:
            return [document]
        step, last = room - min(self._scores.overlap, room // 4), length - room
        return [document[start : start + room] for start in (*range(0, last, step), last)]

    def _pair(self, segments: list[npt.NDArray[np.int64]], cut: bool) -> PairTokens:
        """Sequence of the segments; `cut`: a text of them was shortened before."""
        lengths = [len(ids) for ids in segments]
        kept = self._kept([self._within_limit(row, length) for row, length in enumerate(lengths)])
        ids = np.concatenate([*(ids[:length] for ids, length in zip(segments, kept, strict=True)), self._after])
        types = np.zeros(len(ids), np.int64)
        if self._scores.token_types:
            types[sum(kept[: self._document]) :] = 1
        return PairTokens(ids, types, truncated=cut or kept != lengths)

    def _within_limit(self, row: int, length: int) -> int:
        """Length of a segment, at most that of the query or the document that it is."""
        limits = [self._limit(slot) for slot in (QUERY, DOCUMENT) if self._segments[row] == (slot,)]
        return min([length, *(limit for limit in limits if limit is not None)])

    def _kept(self, lengths: list[int]) -> list[int]:
        """Number of tokens that each segment keeps."""
        room = self._scores.max_tokens - len(self._after)
        if sum(lengths) <= room:
            return lengths
        if self._scores.cut == "end":
            kept: list[int] = np.diff(np.minimum(np.cumsum(lengths), room), prepend=0).tolist()
            return kept
        kept = list(lengths)
        query, document = lengths[self._query], lengths[self._document]
        if self._scores.cut == "longest":
            free = room - sum(lengths) + query + document
            kept[self._document] = _longest_first(document, query, free)
            kept[self._query] = free - kept[self._document]
        else:
            kept[self._document] = room - sum(lengths) + document
        if kept[self._document] < min(1, document):
            raise InputError(
                f"the query has {query} tokens, which leaves no room for a document: a pair has at most "
                f"{self._scores.max_tokens}; shorten it"
            )
        return kept

    def _segment_of(self, slot: Slot) -> int:
        return next(row for row, segment in enumerate(self._segments) if slot in segment)

    def _problems(self) -> Iterator[str]:
        """Contradictions between the template, the cut and the tokenizer; `score_rules` checks the rest."""
        query, document = self._segments[self._query], self._segments[self._document]
        if self._scores.cut != "end" and document[-1] != DOCUMENT:
            yield f"cut is {self._scores.cut!r}, and text follows the document"
        if self._scores.cut == "longest" and (query is document or query[-1] != QUERY):
            yield "cut is 'longest', and the query does not end before ids"
        if self._scores.overlap is not None and document != (DOCUMENT,):
            yield "there is an overlap of windows, and the document is not alone between ids"
        if len(self._segments) > 1 and self._tokenizer.first_word_differs:
            yield "the tokenizer puts a space before the first word alone, and text follows ids"


def _longest_first(document: int, query: int, room: int) -> int:
    """Tokens that the document keeps where both together keep `room`, as transformers' `longest_first` cuts."""
    shorter = min(document, query)
    if 2 * shorter <= room:
        return document if document == shorter else room - shorter
    # The longer one has the odd token; of two alike, it is the document.
    return room // 2 + (room % 2 if document >= query else 0)
