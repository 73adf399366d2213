"""Evaluation sets in folders: BEIR's layout for retrieval, a table of scored pairs for text similarity.

| file | content |
|------|---------|
| corpus.jsonl[.gz] | `_id` or `id`; `text`, optionally `title`; or `image`, a path in the folder; optionally `lang` |
| queries.jsonl[.gz] | `_id` or `id`, `text`; optionally `lang` |
| qrels.tsv or qrels/test.tsv | query, document, grade; optionally a header line |
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
from embedpack_export.evaluation.sets.data import AnySet, Kind, PairSet, RetrievalSet
from embedpack_export.evaluation.sets.files import find_file, read_columns, read_records
from embedpack_export.reference.protocol import Input

CORPUS, QUERIES, PAIRS = "corpus.jsonl", "queries.jsonl", "pairs.tsv"
QRELS, BEIR_QRELS = "qrels.tsv", "qrels/test.tsv"
PAIRS_HEADER = ["score", "a", "b"]
LANGUAGE = re.compile("[a-z]{2}(_[A-Z]{2})?")
# ISO 639's code for an undetermined language.
UNKNOWN_LANGUAGE = "und"


@dataclass(frozen=True)
class SetFolder:
    """Folder of an evaluation set."""

    path: Path
    name: str
    corpus: Path | None  # file of documents; None for pair sets
    pairs: Path | None  # file of pairs; None for retrieval sets


@dataclass(frozen=True)
class _Entry:
    """Text or image of a line of a corpus or of queries, and its language, if stated."""

    content: Input
    language: str | None


def open_set_folder(path: Path, name: str) -> SetFolder | None:
    """Look for the files of an evaluation set in a folder; None if there are none.

    Raises:
        InputError: a file exists both plain and as .gz.
    """
    corpus, pairs = find_file(path, CORPUS), find_file(path, PAIRS)
    return None if corpus is None and pairs is None else SetFolder(path, name, corpus, pairs)


def read_set(folder: SetFolder, *, blank: bool = False) -> AnySet:
    """Read an evaluation set; `blank` texts are kept, for `embedpack_export.evaluation.sets.empty_text_filter`.

    Raises:
        InputError: a file is missing, damaged or not UTF-8; an id occurs twice; a text is empty; a judgement names an
            unknown id; or no query has a relevant document.
    """
    if folder.pairs is not None:
        return _read_pairs(folder.pairs, folder.name, blank=blank)
    assert folder.corpus is not None
    return _read_retrieval(folder.path, folder.corpus, folder.name, blank=blank)


def _read_retrieval(folder: Path, corpus: Path, name: str, *, blank: bool) -> RetrievalSet:
    documents = _read_entries(corpus, folder, blank=blank)
    queries_file = find_file(folder, QUERIES)
    if queries_file is None:
        raise InputError(
            f"{folder / QUERIES}: missing, and so is {QUERIES}.gz; "
            f"a set has {CORPUS}, {QUERIES} and {QRELS}, or {PAIRS}"
        )
    queries = _read_entries(queries_file, None, blank=blank)
    qrels = _read_qrels(folder, queries, documents)
    if not qrels:
        raise InputError(f"{folder}: no query has a relevant document (a grade above 0); is this the right qrels file?")
    judged = {key: entry for key, entry in queries.items() if key in qrels}
    kind = _kind(name, documents)
    languages = [entry.language for entry in (*judged.values(), *documents.values())]
    fallback = _language_of(name, kind, [entry.language for entry in judged.values()])
    return RetrievalSet(
        name=name,
        kind=kind,
        documents={key: entry.content for key, entry in documents.items()},
        queries={key: str(entry.content) for key, entry in judged.items()},
        qrels={key: qrels[key] for key in judged},
        languages=[language or fallback for language in languages],
        unjudged=len(queries) - len(judged),
    )


def _read_entries(path: Path, images: Path | None, *, blank: bool) -> dict[str, _Entry]:
    """Read a corpus or queries by id; `images` is the folder of images, None if images are not allowed."""
    entries: dict[str, _Entry] = {}
    for location, record in read_records(path):
        key = record.get("_id", record.get("id"))
        if not isinstance(key, str) or not key or key.split() != [key]:
            raise InputError(f"{location}: `_id` or `id` must be a text without white space, found {key!r}")
        if key in entries:
            raise InputError(f"{location}: the id {key!r} occurs a second time; ids must be unique")
        language = record.get("lang")
        if language is not None and not isinstance(language, str):
            raise InputError(f"{location}: `lang` must be a text, found {language!r}")
        image = record.get("image") if images is not None else None
        content = (
            _text(location, record, blank=blank) if image is None or images is None else _image(location, images, image)
        )
        entries[key] = _Entry(content, language)
    if not entries:
        raise InputError(f"{path}: empty; a set needs at least one entry")
    return entries


def _text(location: str, record: Mapping[str, Any], *, blank: bool) -> str:
    title, text = record.get("title") or "", record.get("text")
    if not isinstance(text, str) or not isinstance(title, str):
        raise InputError(f"{location}: `text` (and `title`, if there is one) must be a text, found {text!r}")
    content = f"{title} {text}".strip() if title.strip() else text
    if not blank and not content.strip():
        raise InputError(f"{location}: the text is empty; leave the entry out, or pass --on-empty skip")
    return content


def _image(location: str, folder: Path, name: object) -> Path:
    plain = isinstance(name, str) and name and not PurePosixPath(name).is_absolute()
    if not plain or ".." in PurePosixPath(str(name)).parts:
        raise InputError(f"{location}: `image` must be a path below {folder}, found {name!r}")
    path = folder / str(name)
    if not path.is_file():
        raise InputError(f"{location}: the image {path} is missing; add it, or leave the entry out")
    return path


def _read_qrels(folder: Path, queries: Mapping[str, Any], documents: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Read the grades above 0, by query and document."""
    path = find_file(folder, QRELS) or find_file(folder, BEIR_QRELS)
    if path is None:
        raise InputError(f"{folder}: relevance judgements are missing; add {QRELS} or {BEIR_QRELS}")
    judged: set[tuple[str, str]] = set()
    qrels: dict[str, dict[str, int]] = {}
    for number, (location, (query, document, grade)) in enumerate(read_columns(path, 3)):
        if not re.fullmatch("-?[0-9]{1,9}", grade):
            if number == 0:
                continue  # the header line
            raise InputError(f"{location}: the grade must be a whole number, found {grade!r}; correct it")
        for role, key, entries in (("query", query, queries), ("document", document, documents)):
            if key not in entries:
                raise InputError(f"{location}: there is no {role} {key!r}; add it, or remove the line")
        if (query, document) in judged:
            raise InputError(
                f"{location}: the document {document!r} is judged a second time for the query {query!r}; keep one"
            )
        judged.add((query, document))
        if int(grade) > 0:
            qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def _read_pairs(path: Path, name: str, *, blank: bool) -> PairSet:
    rows = list(read_columns(path, 3))
    if not rows or rows[0][1] != PAIRS_HEADER:
        raise InputError(f"{path}: the first line must be {' '.join(PAIRS_HEADER)} between tabs; add it")
    scores = []
    for location, (score, first, second) in rows[1:]:
        scores.append(_score(location, score))
        if not blank and not (first.strip() and second.strip()):
            raise InputError(f"{location}: a text of the pair is empty; leave the pair out, or pass --on-empty skip")
    if len(set(scores)) < 2:
        raise InputError(f"{path}: {len(scores)} pairs without two different scores; add pairs of other scores")
    texts = [fields for _, fields in rows[1:]]
    return PairSet(
        name, scores, [first for _, first, _ in texts], [second for *_, second in texts], _language_of(name, "sts", [])
    )


def _score(location: str, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(
            f"{location}: the score must be a finite number, found {text!r}; correct it, or leave the pair out"
        )
    return score


def _kind(name: str, documents: Mapping[str, _Entry]) -> Kind:
    if any(isinstance(entry.content, Path) for entry in documents.values()):
        return "visual"
    return "code" if PurePosixPath(name).parts[0] == "code" else "retrieval"


def _language_of(name: str, kind: Kind, stated: Sequence[str | None]) -> str:
    """Return the language of texts without `lang`: "code", else the one in the set's name, else that of all queries."""
    if kind == "code":
        return "code"
    named = [part for part in PurePosixPath(name).name.split("-") if LANGUAGE.fullmatch(part)]
    if len(named) == 1:
        return named[0]
    languages = {language for language in stated if language is not None}
    return languages.pop() if len(languages) == 1 else UNKNOWN_LANGUAGE
