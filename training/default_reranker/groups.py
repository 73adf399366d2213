"""Training groups of the cross-encoder, and their file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.default_model.training_sets import read_records


@dataclass(frozen=True)
class Group:
    """A query with its own document, the first one, and neighbours of it.

    Attributes:
        source: name of the training set.
        query: the query.
        documents: the documents; index 0 answers the query.
        teacher: MaxSim per query token of each document by the ColBERT, plus half of the single vectors' cosine.
        tokens: for each document, the highest cosine of every query token, without special tokens.
    """

    source: str
    query: str
    documents: list[str]
    teacher: list[float]
    tokens: list[list[float]]


def write_groups(groups: Iterable[Group], path: Path) -> None:
    """Write one JSON object a line, gzip-compressed, with the same bytes for the same groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(vars(group), ensure_ascii=False) for group in groups]
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode("utf-8"), mtime=0))


def read_groups(path: Path) -> list[Group]:
    """Read the file that `write_groups` wrote."""
    return [Group(**record) for record in read_records(path)]
