"""What a model is judged on: sets of queries with judged documents, and sets of scored pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

# A text, or the file of an image.
Input = str | Path
Kind = Literal["retrieval", "code", "sts", "visual"]


@dataclass(frozen=True)
class RetrievalSet:
    """Documents and queries by id, and for every query the grades of its documents.

    Attributes:
        name: its folder, below that of all data.
        kind: "visual" where documents are images, "code" below a folder of that name, else "retrieval".
        documents: texts (title and text where there is a title) or files of images.
        queries: those that have a relevant document.
        qrels: grades above 0, of every query.
        languages: of queries and documents: those of `queries` in their order, then those of `documents`.
        unjudged: queries of the file that were left out, as no document is relevant for them.
    """

    name: str
    kind: Kind
    documents: Mapping[str, Input]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    languages: Sequence[str]
    unjudged: int = 0

    @property
    def query_languages(self) -> Sequence[str]:
        """Those of the queries."""
        return self.languages[: len(self.queries)]

    def limited(self, count: int) -> RetrievalSet:
        """The first queries with their documents and the first others: to try things out, not to report."""
        queries = dict(list(self.queries.items())[:count])
        relevant = {document for query in queries for document in self.qrels[query]}
        others = [name for name in self.documents if name not in relevant][:count]
        kept = relevant.union(others)
        languages = dict(zip(self.documents, self.languages[len(self.queries) :], strict=True))
        documents = {name: item for name, item in self.documents.items() if name in kept}
        return replace(
            self,
            documents=documents,
            queries=queries,
            qrels={query: self.qrels[query] for query in queries},
            languages=[*self.languages[: len(queries)], *(languages[name] for name in documents)],
        )


@dataclass(frozen=True)
class PairSet:
    """Pairs of texts with a human score of their likeness each.

    Attributes:
        name: its folder, below that of all data.
        scores: one for each pair.
        first, second: the texts.
        language: of all of them.
    """

    name: str
    scores: Sequence[float]
    first: Sequence[str]
    second: Sequence[str]
    language: str

    @property
    def kind(self) -> Kind:
        """Always "sts"."""
        return "sts"

    def limited(self, count: int) -> PairSet:
        """The first pairs."""
        return replace(self, scores=self.scores[:count], first=self.first[:count], second=self.second[:count])


AnySet = RetrievalSet | PairSet
