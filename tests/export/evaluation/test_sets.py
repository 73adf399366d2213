"""Evaluation sets are found and read; each error names file, line and value."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.retrieval_sets import read_retrieval_sets
from embedpack.errors import InputError
from embedpack_export.evaluation.sets.assignment import task_of
from embedpack_export.evaluation.sets.data import PairSet, RetrievalSet
from embedpack_export.evaluation.sets.discovery import find_sets, read_sets
from tests.helpers.evaluation_sets import write_data, write_lines, write_retrieval
from tests.helpers.exports import exactly


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set that tests may damage."""
    return write_retrieval(tmp_path / "set")


def reading(folder: Path) -> RetrievalSet:
    return read_retrieval_sets(folder.parent, [folder.name])[0]


def test_all_kinds_are_found_and_read(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    code, retrieval, pairs = read_sets(data)
    assert [item.name for item in (code, retrieval, pairs)] == ["code/words", "retrieval/words-en", "sts/pairs-de-dev"]
    assert [item.kind for item in (code, retrieval, pairs)] == ["code", "retrieval", "sts"]
    assert isinstance(retrieval, RetrievalSet)
    assert isinstance(pairs, PairSet)
    assert len(retrieval.documents) == 20
    assert retrieval.qrels["q3"] == {"d3": 1}
    assert retrieval.documents["d0"] == "tree " + str(code.documents["d0"]).removeprefix("tree ")  # type: ignore[union-attr]
    assert list(retrieval.languages) == ["en"] * 12 + ["de"] + ["en"] * 19
    assert pairs.language == "de"
    assert pairs.scores[:7] == [0, 1, 2, 3, 4, 5, 0]


def test_a_set_is_found_in_the_folder_itself_and_by_name(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    assert list(find_sets(data / "code" / "words")) == [""]
    (alone,) = read_sets(data / "code" / "words")
    assert alone.name == "words"
    assert [item.name for item in read_sets(data, ["sts/pairs-de-dev", "sts/pairs-de-dev"])] == ["sts/pairs-de-dev"]


def test_a_limited_set_keeps_relevant_documents(folder: Path) -> None:
    limited = reading(folder).limited(3)
    assert list(limited.queries) == ["q0", "q1", "q2"]
    assert list(limited.documents) == [f"d{row}" for row in range(6)]
    assert list(limited.languages) == ["en"] * 3 + ["de"] + ["en"] * 5


def test_beir_layout_with_test_qrels_and_queries_of_other_splits(folder: Path) -> None:
    rows = (folder / "qrels.tsv").read_text().splitlines()[2:]
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("\n".join(["q0\td0\t0", *rows]) + "\r\n")
    found = reading(folder)
    assert "q0" not in found.queries
    assert (len(found.queries), found.unjudged) == (11, 1)


def test_images_are_paths(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "a.png").touch()
    records = [{"id": f"d{row}", "image": "images/a.png", "text": "ignored"} for row in range(20)]
    (folder / "corpus.jsonl.gz").unlink()
    write_lines(folder / "corpus.jsonl", records)
    found = reading(folder)
    assert found.kind == "visual"
    assert found.documents["d4"] == folder / "images" / "a.png"


def append(name: str, line: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("ab") as stream:
            stream.write(line.encode() + b"\n")

    return change


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def corpus(*records: dict[str, object]) -> Callable[[Path], None]:
    content = "".join(json.dumps(record) + "\n" for record in records)
    return overwrite("corpus.jsonl.gz", gzip.compress(content.encode()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            remove("qrels.tsv"),
            "{folder}: relevance judgements are missing; add qrels.tsv or qrels/test.tsv",
        ),
        (
            remove("queries.jsonl"),
            "{folder}/queries.jsonl: missing, and so is queries.jsonl.gz; a set has corpus.jsonl, queries.jsonl and "
            "qrels.tsv, or pairs.tsv",
        ),
        (
            append("queries.jsonl", '{"id": "q3", "text": "again"}'),
            "{folder}/queries.jsonl, line 13: the id 'q3' occurs a second time; ids must be unique",
        ),
        (
            corpus({"id": "d1", "text": "a"}, {"_id": "d1", "text": "b"}),
            "{folder}/corpus.jsonl.gz, line 2: the id 'd1' occurs a second time; ids must be unique",
        ),
        (
            append("queries.jsonl", '{"id": "q12", "text": " "}'),
            "{folder}/queries.jsonl, line 13: the text is empty; leave the entry out, or pass --on-empty skip",
        ),
        (
            append("queries.jsonl", '{"id": "q12"}'),
            "{folder}/queries.jsonl, line 13: `text` (and `title`, if there is one) must be a text, found None",
        ),
        (
            append("queries.jsonl", '{"id": 12, "text": "a"}'),
            "{folder}/queries.jsonl, line 13: `_id` or `id` must be a text without white space, found 12",
        ),
        (
            append("queries.jsonl", "[1]"),
            "{folder}/queries.jsonl, line 13: expected an object with an id and a text, found '[1]'",
        ),
        (
            overwrite("queries.jsonl", '{"id": "q0", "text": "Straße"}'.encode("latin-1")),
            "{folder}/queries.jsonl, line 1: not UTF-8 at byte 26; convert the file to UTF-8",
        ),
        (overwrite("queries.jsonl", b""), "{folder}/queries.jsonl: empty; a set needs at least one entry"),
        (
            append("qrels.tsv", "q77\td0\t1"),
            "{folder}/qrels.tsv, line 14: there is no query 'q77'; add it, or remove the line",
        ),
        (
            append("qrels.tsv", "q0\td77\t1"),
            "{folder}/qrels.tsv, line 14: there is no document 'd77'; add it, or remove the line",
        ),
        (
            append("qrels.tsv", "q0\td0\t1"),
            "{folder}/qrels.tsv, line 14: the document 'd0' is judged a second time for the query 'q0'; keep one",
        ),
        (
            append("qrels.tsv", "q0\td1\tyes"),
            "{folder}/qrels.tsv, line 14: the grade must be a whole number, found 'yes'; correct it",
        ),
        (append("qrels.tsv", "q0 d1 1"), "{folder}/qrels.tsv, line 14: expected 3 fields between tabs, found 1"),
        (
            overwrite("qrels.tsv", b"query\tdoc\tgrade\nq0\td0\t0\n"),
            "{folder}: no query has a relevant document (a grade above 0); is this the right qrels file?",
        ),
        (
            corpus({"id": "d0", "image": "../secret.png"}),
            "{folder}/corpus.jsonl.gz, line 1: `image` must be a path below {folder}, found '../secret.png'",
        ),
        (
            corpus({"id": "d0", "image": "gone.png"}),
            "{folder}/corpus.jsonl.gz, line 1: the image {folder}/gone.png is missing; add it, or leave the entry out",
        ),
        (
            overwrite("corpus.jsonl", b""),
            "{folder}/corpus.jsonl: next to it lies corpus.jsonl.gz; remove one of them",
        ),
        (
            overwrite("corpus.jsonl.gz", gzip.compress(b"x" * 1000)[:-20]),
            "{folder}/corpus.jsonl.gz: damaged: Compressed file ended before the end-of-stream marker was reached; "
            "copy it again",
        ),
    ],
)
def test_what_is_wrong_with_a_set_is_told(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=exactly(message.format(folder=folder))):
        reading(folder)


def test_a_line_that_is_no_json_is_told(folder: Path) -> None:
    append("queries.jsonl", "{")(folder)
    with pytest.raises(InputError, match=r"queries\.jsonl, line 13: not valid JSON: "):
        reading(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\tc\n", "the first line must be score a b between tabs; add it"),
        (
            "score\ta\tb\nhigh\tx\ty\n",
            ", line 2: the score must be a finite number, found 'high'; correct it, or leave the pair out",
        ),
        (
            "score\ta\tb\nnan\tx\ty\n",
            ", line 2: the score must be a finite number, found 'nan'; correct it, or leave the pair out",
        ),
        (
            "score\ta\tb\n1\tx\t \n",
            ", line 2: a text of the pair is empty; leave the pair out, or pass --on-empty skip",
        ),
        (
            "score\ta\tb\n1\tx\ty\n1\tx\tz\n",
            "2 pairs without two different scores; add pairs of other scores",
        ),
    ],
)
def test_what_is_wrong_with_pairs_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_sets(tmp_path)


def test_folders_without_the_wanted_sets_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; --data names the folder of the sets"):
        read_sets(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no sets here; a set is a folder with corpus.jsonl"):
        read_sets(tmp_path)
    data = write_data(tmp_path / "data")
    with pytest.raises(InputError, match=r"unknown set 'code/word'; .*; did you mean 'code/words'\?"):
        read_sets(data, ["code/word"])
    with pytest.raises(InputError, match=exactly("--limit is 1; it must be at least 2")):
        read_sets(data, limit=1)
    with pytest.raises(InputError, match="a set of pairs; here a set with queries and documents is needed"):
        read_retrieval_sets(data, ["sts/pairs-de-dev"])


def test_a_set_goes_to_the_task_of_its_kind() -> None:
    tasks = ("retrieval", "text-matching", "code")
    assert [task_of(kind, tasks) for kind in ("code", "sts", "retrieval", "visual")] == [
        "code", "text-matching", "retrieval", "retrieval",
    ]  # fmt: skip
    assert task_of("code", ["retrieval", "classification"]) == "retrieval"
    assert task_of("sts", ["default"]) == "default"
    assert task_of("retrieval", ["classification", "separation"]) is None
