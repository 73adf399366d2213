"""The evaluation sets of each task and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from texts import Graded, read_graded, read_records

SEARCH_SETS = {
    "retrieval": ("retrieval/debian-desc-en", "retrieval/xquad-en", "long/manpages-en"),
    "code": ("code/cosqa-dev", "code/nl2bash", "code/java-cs-test"),
}
GRADED_SETS = (
    "sts/jsts-valid",
    "sts/stsb-en-dev",
    "sts/stsb-de-dev",
    "sts/stsb-fr-dev",
    "sts/stsb-ja-dev",
    "sts/stsb-ru-dev",
    "sts/stsb-zh-dev",
)


@dataclass(frozen=True)
class Search:
    """A set; `relevant` names for every query the positions of its passages."""

    queries: list[str]
    passages: list[str]
    relevant: list[set[int]]


def read_search(folder: Path) -> Search:
    """Texts and judgements; titles are not used.

    Raises:
        SystemExit: A query has no judgement: it tells nothing and would divide by zero.
    """
    passages = read_records(folder / "corpus.jsonl.gz")
    queries = read_records(folder / "queries.jsonl.gz")
    places = {passage["id"]: place for place, passage in enumerate(passages)}
    answers: dict[str, set[int]] = {query["id"]: set() for query in queries}
    for row in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, _ = row.split("\t")
        answers[query].add(places[passage])
    if unanswered := [query for query, found in answers.items() if not found]:
        raise SystemExit(f"{folder}: {len(unanswered)} queries have no judgement, the first is {unanswered[0]}")
    return Search([one["text"] for one in queries], [one["text"] for one in passages], list(answers.values()))


def read_similarity(folder: Path) -> list[Graded]:
    """Graded pairs of one set."""
    return read_graded(folder / "pairs.tsv")
