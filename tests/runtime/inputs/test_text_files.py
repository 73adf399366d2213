"""Files of texts: formats by their endings, ids, places of errors."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.cli.options import FORMATS
from embedpack.errors import CapacityError, EmbedpackError, InputError
from embedpack.inputs import file_content, text_formats
from embedpack.inputs.files import read_parts
from embedpack.inputs.text_files import TextFileOptions, read_texts

RECORDS = [{"id": "a", "text": "one"}, {"id": "b", "text": "two,\tthree"}]
# Texts that every format can hold; in plain lines a text has no line break.
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: not text.isspace()),
    min_size=1,
)


def content(ending: str, records: list[dict[str, str]]) -> bytes:
    """A file of records in the format of its ending."""
    if ending == ".json":
        return json.dumps(records, indent=1).encode()
    if ending == ".jsonl":
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, list(records[0]), delimiter="\t" if ending == ".tsv" else ",")
    table.writeheader()
    table.writerows(records)
    return stream.getvalue().encode()


def write(folder: Path, name: str, data: bytes | str) -> str:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def test_the_formats_of_the_command_line_are_those_that_are_read() -> None:
    assert get_args(text_formats.Format) == FORMATS


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".tsv"])
def test_a_file_is_read_in_the_format_of_its_ending(ending: str, compressed: bool, tmp_path: Path) -> None:
    data = content(ending, RECORDS)
    name = f"docs{ending.upper()}" + (".gz" if compressed else "")
    texts = read_texts(write(tmp_path, name, gzip.compress(data) if compressed else data))
    assert (texts.ids, texts.texts) == (["a", "b"], ["one", "two,\tthree"])


@given(TEXTS)
def test_records_survive_every_format(texts: list[str]) -> None:
    records = [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        for ending in (".json", ".jsonl", ".csv", ".tsv"):
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content(ending, records))))
            format = text_formats.format_of(f"x{ending}")
            assert read_texts("-", TextFileOptions(format=format)).texts == texts


def test_a_json_array_of_texts(tmp_path: Path) -> None:
    texts = read_texts(write(tmp_path, "docs.json", '["one", "two"]'))
    assert (texts.ids, texts.texts, texts.location(1)) == (["1", "2"], ["one", "two"], f"{tmp_path}/docs.json, item 2")


@pytest.mark.parametrize("name", ["d.heic", "d.xlsx", "d.bin", "d.html", "d.tar.gz", "d.npz", "d.safetensors"])
def test_an_unknown_ending_is_never_read_as_lines(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, "looks like text\n")
    with pytest.raises(InputError, match=r"unknown ending .*; known: \.txt.*; for a text file of another name pass"):
        read_texts(path)
    if not name.endswith(".gz"):
        assert read_texts(path, TextFileOptions(format="lines")).texts == ["looks like text"]


@pytest.mark.parametrize("signature", file_content.SIGNATURES)
def test_a_file_that_is_no_text_is_named_by_its_first_bytes(signature: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"by its first bytes this is an? "):
        read_texts(write(tmp_path, "notes.txt", signature + b" decodes as UTF-8, maybe"))


def test_parquet_is_read_or_names_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"f\.parquet: reading Parquet needs pyarrow.* Run: pip install pyarrow"):
        read_texts(write(tmp_path, "f.parquet", b"PAR1"))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "docs.parquet")
    table = pyarrow.table({"_id": [7, None], "text": ["one", "two"], "other": [None, 1.5]})
    parquet.write_table(table, path)
    texts = read_texts(path)
    assert (texts.ids, texts.texts, texts.unit) == (["7", "2"], ["one", "two"], "row")
    with pytest.raises(InputError, match=r"docs\.parquet: no column 'body' \(columns: _id, text, other\)"):
        read_texts(path, TextFileOptions(column="body"))
    with pytest.raises(InputError, match="cannot be read"):
        read_texts(write(tmp_path, "broken.parquet", b"PAR1 broken"))


def test_a_file_that_decompresses_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "docs.txt.gz", gzip.compress(b"word " * 1000))
    monkeypatch.setattr(file_content, "MAX_CONTENT_BYTES", 4999)
    with pytest.raises(CapacityError, match=r"docs\.txt\.gz: more than 4999 bytes of text; split the file"):
        read_texts(path)


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    whole = gzip.compress(b"text of a file\n" * 50)
    for damaged in (whole[:-9], b"plain text", whole[:20] + bytes(40)):
        with pytest.raises(InputError, match=r"d\.jsonl\.gz: not a whole gzip file: .*; copy it again"):
            read_texts(write(tmp_path, "d.jsonl.gz", damaged))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": "a"}, "a"),
        ({"_id": "b"}, "b"),
        ({"id": "a", "_id": "b"}, "a"),
        ({"id": None, "_id": "b"}, "b"),
        ({"id": None}, "1"),
        ({"id": ""}, "1"),
        ({}, "1"),
        ({"id": 7}, "7"),
        ({"id": 0}, "0"),
        ({"id": 12345678901234567890123}, "12345678901234567890123"),
        ({"id": 1.5}, "1.5"),
        ({"id": "ends with NUL\0"}, "ends with NUL\0"),
    ],
)
def test_ids(record: dict[str, object], expected: str, tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", json.dumps({**record, "text": "x"}))
    assert read_texts(path).ids == [expected]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": {"a": 1}, "text": "x"}'], "line 1: 'id' is an object; an id is a text or a number"),
        (['{"id": [1], "text": "x"}'], "line 1: 'id' is an array; an id is a text or a number"),
        (['{"id": true, "text": "x"}'], "line 1: 'id' is a boolean; an id is a text or a number"),
        (['{"id": "a", "text": "x"}', '{"id": "a", "text": "y"}'], "line 2: the id a occurs a second time, first in"),
        (['{"id": 1, "text": "x"}', '{"id": "1", "text": "y"}'], "line 2: the id 1 occurs a second time, first in"),
        (['{"id": "a", "text": null}'], "line 1: id a: 'text' is null, not a text; leave the record out"),
        (['{"id": "a", "text": 3}'], "line 1: id a: 'text' is a number, not a text; leave the record out"),
        (['{"id": "a", "body": "x"}'], "line 1: id a: no text under 'text' (keys: id, body); see --column"),
        (['{"id": "a", "text": " "}'], "line 1: id a: the text is empty; leave it out, or see --on-empty"),
        (['{"id": "a", "text": "x\\u0000"}'], "line 1: id a: the text has a NUL character at position 1; is"),
        (['{"text": "x"}', "[1]"], "line 2: not a JSON object: "),
    ],
)
def test_a_record_that_cannot_be_used_is_named_or_left_out(lines: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", "\n".join([*lines, '{"id": "last", "text": "good"}']))
    with pytest.raises(InputError) as caught:
        read_texts(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    errors: list[EmbedpackError] = []
    assert read_texts(path, TextFileOptions(on_error=errors.append)).ids[-1] == "last"
    assert [str(error) for error in errors] == [str(caught.value)]


def test_a_file_whose_records_are_all_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"text": 1}\n')
    with pytest.raises(InputError, match="no text in it; leave it out"):
        read_texts(path, TextFileOptions(on_error=lambda error: None))


def test_a_named_id_column_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"id": "a", "key": "k", "text": "x"}\n{"id": "a", "text": "y"}\n')
    with pytest.raises(InputError, match="line 2: no id under 'key'; see --id-column"):
        read_texts(path, TextFileOptions(id_column="key"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("d.json", '{"a": "one"}', "d.json: expected a JSON array of texts or of objects with a text each"),
        ("d.json", '{"text": "a"}\n{"text": "b"}', "d.json: not valid JSON: "),
        ("d.json", "[1]", "d.json, item 1: neither a text nor a JSON object"),
        ("d.json", "", "d.json: the file is empty; leave it out"),
        ("d.json", "[" * 100_000, "d.json: not valid JSON: "),
        ("d.jsonl", '{"text": "a", "x": ' + "[" * 100_000, "d.jsonl, line 1: not a JSON object: "),
        ("d.tsv", "id\tbody\n1\tone\n", "d.tsv: no column 'text' (columns: id, body); see --column"),
        ("d.tsv", "id\ttext\n1\n", "d.tsv, line 2: the number of fields differs from the 2 of the header"),
        ("d.csv", "id,text\n1,one,two\n", "d.csv, line 2: the number of fields differs from the 2 of the header"),
        ("d.csv", "text,text\none,two\n", "d.csv, line 1: two columns have the same name; rename one"),
        ("d.csv", "id,text\n", "d.csv: the file is empty; leave it out"),
        ("d.txt", "\n \n", "d.txt: no text in it; leave it out"),
        ("d.txt", "", "d.txt: the file is empty; leave it out"),
    ],
)
def test_files_that_cannot_be_used(name: str, data: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_texts(write(tmp_path, name, data))
    assert message in str(caught.value)


def test_blank_lines_are_no_texts_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "embedpack")
    path = write(tmp_path, "notes.md", "first paragraph\r\n\r\nsecond\n\t\n\n")
    texts = read_texts(path)
    assert (texts.ids, texts.texts) == (["1", "3"], ["first paragraph", "second"])
    assert caplog.messages == [f"{path}: skipped 3 blank lines"]


def test_ids_of_several_files_are_distinct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "notes.txt", "one\ntwo\n")
    write(tmp_path, "more.jsonl", '{"id": "1", "text": "three"}\n')
    write(tmp_path, "own.jsonl", '{"id": "d7", "text": "four"}\n')

    def ids(*sources: str) -> list[str]:
        return [name for part in read_parts(sources, TextFileOptions()) for name in part.ids]

    assert ids("notes.txt", "own.jsonl") == ["1", "2", "d7"]
    assert ids("notes.txt", "more.jsonl") == ["notes.txt#1", "notes.txt#2", "more.jsonl#1"]
    assert ids("notes.txt", "notes.txt") == ["notes.txt#1", "notes.txt#2", "notes.txt (2)#1", "notes.txt (2)#2"]


def test_a_location_has_the_id_of_a_text_that_has_one(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"text": "x"}\n{"id": "' + "k" * 500 + '", "text": "y"}\n')
    texts = read_texts(path)
    assert texts.location(0) == f"{path}, line 1"
    assert texts.location(1) == f"{path}, line 2 (id {'k' * 60}...)"
