"""Sets in folders: BEIR's layout for retrieval, a table of pairs for semantic likeness.

| file | content |
|------|---------|
| corpus.jsonl[.gz] | `_id` or `id`; `text`, some with `title`; or `image`, a path below the folder; some with `lang` |
| queries.jsonl[.gz] | `_id` or `id`, `text`; some with `lang` |
| qrels.tsv or qrels/test.tsv | query, document, grade; the header line may be missing |
| pairs.tsv[.gz] | score, a, b; header line |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from embedpack.errors import InputError
from embedpack_export.evaluation.sets.data import AnySet, Input, Kind, PairSet, RetrievalSet
from embedpack_export.evaluation.sets.files import find_file, read_columns, read_records

CORPUS, QUERIES, PAIRS = "corpus.jsonl", "queries.jsonl", "pairs.tsv"
PAIRS_HEADER = ["score", "a", "b"]
LANGUAGE = re.compile("[a-z]{2}(_[A-Z]{2})?")
# What ISO 639 calls a language that nobody stated.
UNKNOWN = "und"


@dataclass(frozen=True)
class _Entry:
    """A line of a corpus or of queries."""

    item: Input
    language: str | None


def is_set(folder: Path) -> bool:
    """Whether a folder holds a set."""
    return find_file(folder, CORPUS) is not None or find_file(folder, PAIRS) is not None


def read_set(data: Path, name: str) -> AnySet:
    """Read the set in the folder `data / name`.

    Raises:
        InputError: a file is missing, damaged or not UTF-8; an id occurs twice; a text is empty; the judgements name
            what does not exist, or leave no query.
    """
    folder = data / name
    shown = name if PurePosixPath(name).name else folder.resolve().name
    if find_file(folder, PAIRS) is not None:
        return _read_pairs(folder, shown)
    return _read_retrieval(folder, shown)


def read_retrieval_set(data: Path, name: str) -> RetrievalSet:
    """As `read_set`, for sets of queries and documents.

    Raises:
        InputError: as `read_set`, or the set is one of pairs.
    """
    found = read_set(data, name)
    if not isinstance(found, RetrievalSet):
        raise InputError(f"{data / name}: a set of pairs; here a set with queries and documents is needed")
    return found


def _read_retrieval(folder: Path, name: str) -> RetrievalSet:
    corpus = _entries(_needed(folder, CORPUS), folder)
    asked = _entries(_needed(folder, QUERIES), None)
    qrels = _read_qrels(folder, asked, corpus)
    if not qrels:
        raise InputError(f"{folder}: no query has a relevant document (a grade above 0); is this the right qrels file?")
    documents = {key: entry.item for key, entry in corpus.items()}
    queries = {key: str(entry.item) for key, entry in asked.items() if key in qrels}
    kind = _kind(name, documents)
    languages = [asked[key].language for key in queries] + [entry.language for entry in corpus.values()]
    fallback = _language_of(name, kind, [asked[key].language for key in queries])
    return RetrievalSet(
        name=name,
        kind=kind,
        documents=documents,
        queries=queries,
        qrels={key: qrels[key] for key in queries},
        languages=[language or fallback for language in languages],
        unjudged=len(asked) - len(queries),
    )


def _needed(folder: Path, name: str) -> Path:
    path = find_file(folder, name)
    if path is None:
        raise InputError(
            f"{folder / name}: missing, and so is {name}.gz; a set has {CORPUS}, {QUERIES} and qrels.tsv, or {PAIRS}"
        )
    return path


def _entries(path: Path, images: Path | None) -> dict[str, _Entry]:
    """The lines by id; `images` is the folder below which images may lie, None: there must be none."""
    entries: dict[str, _Entry] = {}
    for place, record in read_records(path):
        key = record.get("_id", record.get("id"))
        if not isinstance(key, str) or not key or key.split() != [key]:
            raise InputError(f"{place}: `_id` or `id` must be a text without white space, found {key!r}")
        if key in entries:
            raise InputError(f"{place}: the id {key!r} occurs a second time; ids must be unique")
        language = record.get("lang")
        if language is not None and not isinstance(language, str):
            raise InputError(f"{place}: `lang` must be a text, found {language!r}")
        image = record.get("image") if images is not None else None
        item = _text(place, record) if image is None or images is None else _image(place, images, image)
        entries[key] = _Entry(item, language)
    if not entries:
        raise InputError(f"{path}: empty; there is nothing to judge by")
    return entries


def _text(place: str, record: Mapping[str, Any]) -> str:
    title, text = record.get("title") or "", record.get("text")
    if not isinstance(text, str) or not isinstance(title, str):
        raise InputError(f"{place}: `text` (and `title`, if there is one) must be a text, found {text!r}")
    whole = f"{title} {text}".strip() if title.strip() else text
    if not whole.strip():
        raise InputError(f"{place}: the text is empty; leave the entry out, and its judgements too")
    return whole


def _image(place: str, folder: Path, name: object) -> Path:
    plain = isinstance(name, str) and name and not PurePosixPath(name).is_absolute()
    if not plain or ".." in PurePosixPath(str(name)).parts:
        raise InputError(f"{place}: `image` must be a path below {folder}, found {name!r}")
    path = folder / str(name)
    if not path.is_file():
        raise InputError(f"{place}: the image {path} is missing")
    return path


def _read_qrels(folder: Path, queries: Mapping[str, Any], documents: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Grades above 0 by query and document."""
    path = find_file(folder, "qrels.tsv") or find_file(folder / "qrels", "test.tsv")
    if path is None:
        raise InputError(f"{folder}: neither qrels.tsv nor qrels/test.tsv is there; without them nothing is relevant")
    judged: set[tuple[str, str]] = set()
    qrels: dict[str, dict[str, int]] = {}
    for number, (place, (query, document, grade)) in enumerate(read_columns(path, 3)):
        if not re.fullmatch("-?[0-9]{1,9}", grade):
            if number == 0:
                continue  # the header line
            raise InputError(f"{place}: the grade must be a whole number, found {grade!r}")
        for what, key, known in (("query", query, queries), ("document", document, documents)):
            if key not in known:
                raise InputError(f"{place}: there is no {what} {key!r}; the files belong to different sets")
        if (query, document) in judged:
            raise InputError(f"{place}: the document {document!r} is judged a second time for the query {query!r}")
        judged.add((query, document))
        if int(grade) > 0:
            qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def _read_pairs(folder: Path, name: str) -> PairSet:
    path = find_file(folder, PAIRS)
    assert path is not None
    rows = list(read_columns(path, 3))
    if not rows or rows[0][1] != PAIRS_HEADER:
        raise InputError(f"{path}: the first line must be {' '.join(PAIRS_HEADER)} between tabs")
    scores = []
    for place, (score, first, second) in rows[1:]:
        scores.append(_score(place, score))
        if not first.strip() or not second.strip():
            raise InputError(f"{place}: a text of the pair is empty; leave the pair out")
    if len(set(scores)) < 2:
        raise InputError(f"{path}: {len(scores)} pairs without two different scores; there is nothing to rank")
    texts = [fields for _, fields in rows[1:]]
    return PairSet(
        name, scores, [first for _, first, _ in texts], [second for *_, second in texts], _language_of(name, "sts", [])
    )


def _score(place: str, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{place}: the score must be a finite number, found {text!r}")
    return score


def _kind(name: str, documents: Mapping[str, Input]) -> Kind:
    if any(isinstance(item, Path) for item in documents.values()):
        return "visual"
    return "code" if PurePosixPath(name).parts[0] == "code" else "retrieval"


def _language_of(name: str, kind: Kind, stated: Sequence[str | None]) -> str:
    """The language of texts that state none: of code "code", else from the name of the set, else of its queries."""
    if kind == "code":
        return "code"
    named = [part for part in PurePosixPath(name).name.split("-") if LANGUAGE.fullmatch(part)]
    if len(named) == 1:
        return named[0]
    known = {language for language in stated if language is not None}
    return known.pop() if len(known) == 1 else UNKNOWN
