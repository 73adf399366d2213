"""Pairs of a query and a document to token ids, for models that score them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, PackError
from embedpack.inputs.templates import Piece, fill, tokenize
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.templates import IdsPart, Part, SlotName, SlotPart

Cut = Literal["document", "longest", "end"]
# Texts beside the document are tokenized as a whole: their length decides its cut.
ALL_TOKENS = 1_048_576


@dataclass(frozen=True)
class PairRules:
    """Sequence of a query and a document, and its cut to `max_tokens`.

    Attributes:
        parts: template with the slots "query" and "document", each once.
        cut: tokens that are removed: "document": from the end of the document; "longest": from the end of the longer
            one, then of both, as transformers' `longest_first`; "end": from the end of the sequence.
        max_query_tokens: tokens of the query; None: no limit of its own.
        token_types: type 1 for the document and all behind it, as in BERT; False: type 0 for all.

    Texts next to a slot are tokenized, and cut, together with it: a segment reaches from ids to ids.
    """

    parts: tuple[Part, ...]
    max_tokens: int
    cut: Cut
    max_query_tokens: int | None = None
    token_types: bool = False


@dataclass(frozen=True)
class PairTokens:
    """Token ids and token types of a pair, int64 [length] each; `truncated`: tokens were cut off."""

    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]
    truncated: bool


class PairEncoder:
    """Encoder of pairs by the rules of a model; the ids `after` of the tokenizer stand behind every sequence."""

    def __init__(self, tokenizer: TextTokenizer, rules: PairRules) -> None:
        """Check the rules; PackError if they cannot be followed."""
        self._tokenizer = tokenizer
        self._rules = rules
        self._segments = [tuple(run) for _, run in groupby(rules.parts, lambda part: isinstance(part, IdsPart))]
        self._after = np.array(tokenizer.rules.after, np.int64)
        for problem in self._problems():
            raise PackError(f"template of pairs: {problem}; export the pack again")
        self._query, self._document = self._segment_of("query"), self._segment_of("document")

    def encode(self, values: Mapping[SlotName, str], documents: Sequence[str]) -> list[PairTokens]:
        """Tokenize the texts of the other slots, `values`, with each of the documents.

        All texts have passed `embedpack.inputs.items.check_text`.

        Raises:
            InputError: the query leaves no room for a document, or the tokenizer fails at a text.
            CapacityError: a text does not fit the memory.
        """
        alike = {row: self._shared(row, values) for row in range(len(self._segments)) if row != self._document}
        # One more than the query has decides which of the two is longer.
        limit = max([self._rules.max_tokens, *map(len, alike.values())]) + 1
        segment = self._segments[self._document]
        texts: list[Piece] = [next(iter(fill(segment, {**values, "document": text})), "") for text in documents]
        found = tokenize(self._tokenizer, texts, limit)
        return [self._pair([alike.get(row, ids) for row in range(len(self._segments))]) for ids in found]

    def _shared(self, row: int, values: Mapping[SlotName, str]) -> npt.NDArray[np.int64]:
        """Token ids of a segment without the document."""
        found = tokenize(self._tokenizer, fill(self._segments[row], values), ALL_TOKENS)
        ids = found[0] if found else np.zeros(0, np.int64)
        return ids[: self._rules.max_query_tokens] if row == self._query else ids

    def _pair(self, segments: list[npt.NDArray[np.int64]]) -> PairTokens:
        lengths = [len(ids) for ids in segments]
        kept = self._kept(lengths)
        ids = np.concatenate([*(ids[:length] for ids, length in zip(segments, kept, strict=True)), self._after])
        types = np.zeros(len(ids), np.int64)
        if self._rules.token_types:
            types[sum(kept[: self._document]) :] = 1
        return PairTokens(ids, types, truncated=kept != lengths)

    def _kept(self, lengths: list[int]) -> list[int]:
        """Number of tokens that each segment keeps."""
        room = self._rules.max_tokens - len(self._after)
        if sum(lengths) <= room:
            return lengths
        if self._rules.cut == "end":
            return np.diff(np.minimum(np.cumsum(lengths), room), prepend=0).tolist()
        kept = list(lengths)
        query, document = lengths[self._query], lengths[self._document]
        if self._rules.cut == "longest":
            free = room - sum(lengths) + query + document
            kept[self._document] = _longest_first(document, query, free)
            kept[self._query] = free - kept[self._document]
        else:
            kept[self._document] = room - sum(lengths) + document
        if kept[self._document] < min(1, document):
            raise InputError(
                f"the query has {query} tokens, which leaves no room for a document: a pair has at most "
                f"{self._rules.max_tokens}; shorten it"
            )
        return kept

    def _segment_of(self, slot: SlotName) -> int:
        return next(row for row, segment in enumerate(self._segments) if SlotPart(slot) in segment)

    def _problems(self) -> Iterator[str]:
        """Contradictions of the rules."""
        for slot in ("query", "document"):
            count = self._rules.parts.count(SlotPart(slot))
            if count != 1:
                yield f"it has the slot {slot!r} {count} times"
                return
        query, document = self._segments[self._segment_of("query")], self._segments[self._segment_of("document")]
        if self._rules.cut != "end" and document[-1] != SlotPart("document"):
            yield f"cut is {self._rules.cut!r}, and text follows the document"
        if self._rules.cut == "longest" and (query is document or query[-1] != SlotPart("query")):
            yield "cut is 'longest', and the query does not end before ids"
        if self._rules.max_query_tokens is not None and len(query) > 1:
            yield "max_query_tokens is set, and the query is not between ids"
        if len(self._segments) > 1 and self._tokenizer.first_word_differs:
            yield "the tokenizer puts a space before the first word alone, and text follows ids"


def _longest_first(document: int, query: int, room: int) -> int:
    """Tokens that the document keeps where both together keep `room`."""
    shorter = min(document, query)
    if 2 * shorter <= room:
        return document if document == shorter else room - shorter
    # The longer one has the odd token; of two alike, it is the document.
    return room // 2 + (room % 2 if document >= query else 0)
