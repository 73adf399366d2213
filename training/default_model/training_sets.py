"""Training sets: their readers, and the order of their batches."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from training.default_model.encoder import Prompts

Item = TypeVar("Item")


class Pair(NamedTuple):
    """A query and its passage."""

    query: str
    passage: str


class Graded(NamedTuple):
    """Two texts and the similarity that people gave them, 0 to 5."""

    left: str
    right: str
    grade: float


class PromptedSet(NamedTuple):
    """Pairs of one set with their prompts, for training and held out."""

    name: str
    train: list[Pair]
    held_out: list[Pair]


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a .jsonl.gz file; only a newline ends a line, since texts may hold other separators."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        return [json.loads(line) for line in stream]


def read_pairs(folder: Path) -> list[Pair]:
    """Pairs of one set, without repeated texts: a repeated text would be a false negative in a batch."""
    queries: set[str] = set()
    passages: set[str] = set()
    pairs = []
    for record in read_records(folder / "pairs.jsonl.gz"):
        pair = Pair(record["query"], record["positive"])
        if pair.query not in queries and pair.passage not in passages:
            pairs.append(pair)
        queries.add(pair.query)
        passages.add(pair.passage)
    return pairs


def read_graded(path: Path) -> list[Graded]:
    """Graded pairs of pairs.tsv or pairs.tsv.gz: a header line, then grade, left, right."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    rows = [row.split("\t") for row in text.rstrip("\n").split("\n")[1:]]
    return [Graded(left, right, float(grade)) for grade, left, right in rows]


def with_prompts(pairs: Sequence[Pair], prompts: Prompts) -> list[Pair]:
    """Pairs with the prompts of both sides."""
    return [Pair(prompts.query + pair.query, prompts.passage + pair.passage) for pair in pairs]


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """Items in an order that depends on the seed alone; the first ones are held out, the rest is for training."""
    return random.Random(seed).sample(items, len(items))


def endless(items: Sequence[Item], batch: int, rng: random.Random) -> Iterator[list[Item]]:
    """Batches of one set without end, reshuffled at each pass."""
    while True:
        mixed = rng.sample(items, len(items))
        for start in range(0, len(mixed) - batch + 1, batch):
            yield mixed[start : start + batch]
