"""Texts that were found or ranked for queries, on standard output or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedpack.cli.output import write_json

SHOWN_CHARACTERS = 100
SCORE_DIGITS = 4


@dataclass(frozen=True)
class Hit:
    """A text of a result."""

    id: str
    score: float
    text: str


@dataclass(frozen=True)
class QueryHits:
    """The texts of a query, best first."""

    query: str
    hits: list[Hit]


def check_queries(queries: Sequence[str]) -> None:
    """Raise InputError for a query that cannot be tokenized."""
    from embedpack.errors import InputError
    from embedpack.inputs.pair_texts import check_query

    for query in queries:
        try:
            query.encode("utf-8")
        except UnicodeEncodeError as cause:
            raise InputError("the query is not valid UTF-8; check the encoding of the terminal") from cause
        check_query(query)


def write_hits(results: Sequence[QueryHits], json: Path | None) -> None:
    """Print the hits of each query, or write them as JSON lines."""
    import msgspec

    if json is not None:
        write_json(json, b"\n".join(map(msgspec.json.encode, results)))
        return
    for result in results:
        print(f"\n{result.query}")
        for hit in result.hits:
            print(f"  {hit.score:.4f}  {hit.id}  {' '.join(hit.text.split())[:SHOWN_CHARACTERS]}")
