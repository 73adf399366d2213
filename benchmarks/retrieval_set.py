"""Retrieval sets: corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv in one folder. Titles are not used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from embedpack import InputError


@dataclass(frozen=True)
class RetrievalSet:
    """Texts by id, and for every query the grades of its documents."""

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def limited(self, count: int) -> RetrievalSet:
        """The first queries with their documents and the first others: to try things out, not to report."""
        queries = dict(list(self.queries.items())[:count])
        relevant = {document for query in queries for document in self.qrels[query]}
        others = set([name for name in self.documents if name not in relevant][:count])
        documents = {name: text for name, text in self.documents.items() if name in relevant | others}
        return replace(
            self, documents=documents, queries=queries, qrels={query: self.qrels[query] for query in queries}
        )


def read_set(data: Path, name: str) -> RetrievalSet:
    """Read the set in the folder `data / name`.

    Raises:
        InputError: a file is missing, or the judgements name a document or query that does not exist, or leave a query
            out.
    """
    folder = data / name
    for file in ("corpus.jsonl.gz", "queries.jsonl.gz", "qrels.tsv"):
        if not (folder / file).is_file():
            raise InputError(f"{folder / file}: missing; a set has corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv")
    documents, queries = _read_texts(folder / "corpus.jsonl.gz"), _read_texts(folder / "queries.jsonl.gz")
    qrels: dict[str, dict[str, int]] = {query: {} for query in queries}
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if query not in queries or document not in documents:
            raise InputError(f"{folder / 'qrels.tsv'}: there is no query {query!r} or no document {document!r}")
        qrels[query][document] = int(grade)
    unjudged = [query for query, grades in qrels.items() if not grades]
    if unjudged:
        raise InputError(f"{folder}: {len(unjudged)} queries have no judgement, the first is {unjudged[0]!r}")
    return RetrievalSet(name, documents, queries, qrels)


def _read_texts(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        return {record["id"]: record["text"] for record in map(json.loads, stream)}
