"""Removal of blank texts and of texts without a token from evaluation sets, so that none ends an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from embedpack.engine.loading import open_processor
from embedpack.errors import InputError, ItemError
from embedpack.inputs.processor import Processor
from embedpack.pack.folder import Pack
from embedpack.pack.prompts import NO_PROMPT
from embedpack_export.evaluation.sets.data import AnySet, PairSet
from embedpack_export.reference.protocol import Input

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class EmptyTextFilter:
    """Filter of texts without tokens, by the tokenizer of a pack."""

    processor: Processor

    @classmethod
    def of(cls, pack: Pack) -> EmptyTextFilter:
        """Open the tokenizer of a pack; PackError if it is broken."""
        return cls(open_processor(pack))

    def has_tokens(self, inputs: Sequence[Input]) -> list[bool]:
        """False for each input that is a text without a token; ItemError for a text that cannot be tokenized."""
        texts = [item for item in inputs if isinstance(item, str)]
        items = list(self.processor.items(texts, blank=True))
        full = iter(self.processor.has_tokens(items, NO_PROMPT))
        return [next(full) if isinstance(item, str) else True for item in inputs]

    def remove_empty(self, evaluation_set: AnySet) -> AnySet:
        """Leave empty texts out of a set, with their judgements or pairs; their number is logged.

        Raises:
            InputError: nothing is left, or a text cannot be tokenized.
        """
        if isinstance(evaluation_set, PairSet):
            return self._pairs(evaluation_set)
        name = evaluation_set.name
        documents = self._kept(name, "document", evaluation_set.documents)
        queries = self._kept(name, "query", evaluation_set.queries)
        empty = len(evaluation_set.documents) + len(evaluation_set.queries) - len(documents) - len(queries)
        if not empty:
            return evaluation_set
        kept = evaluation_set.only(documents, queries)
        unjudged = evaluation_set.unjudged + len(queries) - len(kept.queries)
        logger.warning("%s: left out %d texts that are empty, of documents and queries", name, empty)
        if not kept.queries:
            raise InputError(f"{name}: without its {empty} empty texts no query has a relevant document; correct them")
        return replace(kept, unjudged=unjudged, empty=empty)

    def _pairs(self, pairs: PairSet) -> PairSet:
        names = [str(row) for row in range(1, len(pairs.scores) + 1)]
        sides = [self._kept(pairs.name, "pair", dict(zip(names, side.inputs, strict=True))) for side in pairs.sides]
        rows = [row for row, name in enumerate(names) if all(name in side for side in sides)]
        empty = len(names) - len(rows)
        if not empty:
            return pairs
        logger.warning("%s: left out %d pairs with an empty text", pairs.name, empty)
        kept = pairs.only(rows)
        if len(set(kept.scores)) < 2:
            raise InputError(f"{pairs.name}: without its {empty} empty pairs there is nothing to rank; correct them")
        return replace(kept, empty=empty)

    def _kept(self, name: str, kind: str, inputs: Mapping[str, Input]) -> set[str]:
        """Names of the inputs that are not empty."""
        try:
            return set(compress(inputs, self.has_tokens(list(inputs.values()))))
        except ItemError as cause:
            texts = [each for each, item in inputs.items() if isinstance(item, str)]
            raise InputError(f"{name}: the {kind} {texts[cause.number]} {cause.problem}") from cause
