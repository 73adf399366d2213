"""Evaluation sets of each task, and their readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.default_model.training_sets import read_records

SEARCH_SETS = {
    "retrieval": ("retrieval/debian-desc-en", "retrieval/xquad-en", "long/manpages-en"),
    "code": ("code/cosqa-dev", "code/nl2bash", "code/java-cs-test"),
}
GRADED_SETS = ("sts/jsts-valid", *(f"sts/stsb-{name}-dev" for name in ("en", "de", "fr", "ja", "ru", "zh")))


@dataclass(frozen=True)
class SearchSet:
    """Texts of queries and passages, and the indices of the right passages of every query."""

    queries: list[str]
    passages: list[str]
    relevant: list[set[int]]


def read_search(folder: Path) -> SearchSet:
    """Read texts and judgements; titles are not used.

    Raises:
        SystemExit: a query has no judgement, so its nDCG would divide by zero.
    """
    passages = read_records(folder / "corpus.jsonl.gz")
    queries = read_records(folder / "queries.jsonl.gz")
    index_of = {passage["id"]: index for index, passage in enumerate(passages)}
    relevant: dict[str, set[int]] = {query["id"]: set() for query in queries}
    for row in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, _ = row.split("\t")
        relevant[query].add(index_of[passage])
    if unjudged := [query for query, indices in relevant.items() if not indices]:
        raise SystemExit(f"{folder}: {len(unjudged)} queries have no judgement, the first is {unjudged[0]}")
    return SearchSet(
        [query["text"] for query in queries], [passage["text"] for passage in passages], list(relevant.values())
    )
