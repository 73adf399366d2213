"""Evaluation sets: queries and documents with relevance judgements, and scored pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import compress
from typing import Literal

from embedpack_export.reference.protocol import Input

Kind = Literal["retrieval", "code", "sts", "visual"]


@dataclass(frozen=True)
class Side:
    """Inputs of one side of a set with the name of their prompt, "query" or "document"."""

    inputs: Sequence[Input]
    prompt_name: str


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, documents and relevance judgements, all by id."""

    name: str  # path of the set's folder below the data folder
    kind: Kind  # "visual" if documents are images, "code" for sets below the folder `code`, else "retrieval"
    documents: Mapping[str, Input]  # texts (title and text, if there is a title) or image files
    queries: Mapping[str, str]  # texts of the queries that have a relevant document
    qrels: Mapping[str, Mapping[str, int]]  # for each query the grades (above 0) of its relevant documents
    languages: Sequence[str]  # languages of `queries`, then of `documents`, in their order
    unjudged: int = 0  # number of queries in the file that have no relevant document and are not in `queries`
    empty: int = 0  # number of documents and queries in the files that have no text and were left out

    @property
    def sides(self) -> tuple[Side, Side]:
        """Queries and documents."""
        return Side(list(self.queries.values()), "query"), Side(list(self.documents.values()), "document")

    @property
    def query_languages(self) -> Sequence[str]:
        """Languages of the queries."""
        return self.languages[: len(self.queries)]

    def limited(self, count: int) -> RetrievalSet:
        """Return the first `count` queries with their documents and `count` others, for a quick run."""
        queries = list(self.queries)[:count]
        relevant = {document for query in queries for document in self.qrels[query]}
        others = [name for name in self.documents if name not in relevant][:count]
        return self.only(relevant.union(others), set(queries))

    def only(self, documents: Set[str], queries: Set[str]) -> RetrievalSet:
        """Return some documents, and those of some queries that have a relevant one among them."""
        qrels = {
            query: {name: grade for name, grade in grades.items() if name in documents}
            for query, grades in self.qrels.items()
            if query in queries and not documents.isdisjoint(grades)
        }
        sides = ((self.queries, qrels.keys()), (self.documents, documents))
        kept = [name in chosen for side, chosen in sides for name in side]
        return replace(
            self,
            documents={name: content for name, content in self.documents.items() if name in documents},
            queries={name: text for name, text in self.queries.items() if name in qrels},
            qrels=qrels,
            languages=list(compress(self.languages, kept)),
        )


@dataclass(frozen=True)
class PairSet:
    """Pairs of texts, each with a human score of their similarity."""

    name: str  # path of the set's folder below the data folder
    scores: Sequence[float]  # human score of each pair
    # Texts of each pair.
    first: Sequence[str]
    second: Sequence[str]
    language: str
    empty: int = 0  # number of pairs in the file with an empty text, which were left out

    @property
    def kind(self) -> Kind:
        """The kind of all pair sets, "sts"."""
        return "sts"

    @property
    def sides(self) -> tuple[Side, Side]:
        """First and second texts; both have the same role."""
        return Side(self.first, "query"), Side(self.second, "query")

    @property
    def languages(self) -> Sequence[str]:
        """Language of each first text, then of each second text."""
        return [self.language] * (len(self.first) + len(self.second))

    def limited(self, count: int) -> PairSet:
        """Return the first `count` pairs."""
        return self.only(range(min(count, len(self.scores))))

    def only(self, rows: Sequence[int]) -> PairSet:
        """Return some pairs."""
        return replace(
            self,
            scores=[self.scores[row] for row in rows],
            first=[self.first[row] for row in rows],
            second=[self.second[row] for row in rows],
        )


AnySet = RetrievalSet | PairSet
