"""Small sets in folders, for the tests of evaluation."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = (
    "cat", "sleeps", "warm", "roof", "rain", "index", "shelf", "read", "label", "list", "files", "folder", "sort",
    "day", "week", "disk",
)  # fmt: skip


def texts(count: int, seed: int = 1) -> list[str]:
    """Six different words each."""
    draw = random.Random(seed)
    return [" ".join(draw.sample(WORDS, 6)) for _ in range(count)]


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """JSON lines, gzip where the name ends with .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_retrieval(folder: Path, queries: int = 12, documents: int = 20) -> Path:
    """Queries are the first words of documents; `_id`, titles and languages here and there."""
    found = texts(documents)
    corpus = [{"_id": f"d{row}", "text": text} for row, text in enumerate(found)]
    corpus[0] |= {"title": "tree", "lang": "de"}
    asked = [{"id": f"q{row}", "text": " ".join(found[row].split()[:3]), "lang": "en"} for row in range(queries)]
    write_lines(folder / "corpus.jsonl.gz", corpus)
    write_lines(folder / "queries.jsonl", asked)
    rows = [f"q{row}\td{row}\t1" for row in range(queries)]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def write_pairs(folder: Path, count: int = 16) -> Path:
    """The score is the number of words that both texts begin with."""
    folder.mkdir(parents=True)
    first, second = texts(count, 2), texts(count, 3)
    rows = []
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        same = row % 6
        rows.append(f"{same}\t{a}\t{' '.join([*a.split()[:same], *b.split()[same:]])}")
    (folder / "pairs.tsv").write_text("\n".join(["score\ta\tb", *rows]) + "\n")
    return folder


def write_data(folder: Path) -> Path:
    """One set of each kind of texts."""
    write_retrieval(folder / "retrieval" / "words-en")
    write_retrieval(folder / "code" / "words")
    write_pairs(folder / "sts" / "pairs-de-dev")
    return folder
