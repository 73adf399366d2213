"""Usage of the command line: help, suggestions, options of all commands, outputs in JSON."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from embedpack.cli.main import main
from tests.helpers.tiny_pack import TINY_PACK

PACK = str(TINY_PACK)
COMMANDS = ["export", "embed", "search", "rerank", "serve", "inspect", "verify", "prepare", "bench", "demo"]


@pytest.fixture
def notes(tmp_path: Path) -> str:
    path = tmp_path / "notes.txt"
    path.write_text("the cat sleeps\n\nlist every file\n")
    return str(path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Standard error of a wrong command line."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_help_lists_the_commands_in_the_order_of_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-h"])
    shown = capsys.readouterr().out
    assert re.findall(r"^    ([a-z]+) ", shown, re.MULTILINE) == COMMANDS
    assert "examples:\n  embedpack " in shown


@pytest.mark.parametrize(
    ("arguments", "usage", "message"),
    [
        (["serch"], "embedpack [", "error: unknown command 'serch'; known: export, embed, search"),
        (["serch"], "embedpack [", "did you mean 'search'?"),
        (["bench", "acuracy"], "embedpack bench [", "did you mean 'accuracy'?"),
        (["embed", PACK, "x", "--truncate", "8", "--bogus"], "embedpack embed [", "unrecognized arguments: --bogus"),
        (["verify", PACK, "--jsn"], "embedpack verify [", "unrecognized arguments: --jsn; did you mean --json?"),
        (["inspect", PACK, "more"], "embedpack inspect [", "unrecognized arguments: more"),
        (["prepare", PACK, "--threads", "0"], "embedpack prepare [", "'0' is not a whole number from 1 to 1024"),
        (["prepare", PACK, "--weights", "int2"], "embedpack prepare [", "known: fp32, fp16, int8, int4"),
        (["export", "x", "-o", "y", "--max-length", "many"], "embedpack export [", "'many' is not a whole number"),
        (["export", "x", "-o", "y", "-o", "z"], "embedpack export [", "argument -o/--output: given twice"),
        (["-v", "--quiet", "inspect", PACK], "embedpack [", "not allowed with argument"),
    ],
)
def test_wrong_usage(arguments: list[str], usage: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(arguments, capsys)
    assert error.startswith(f"usage: {usage}")
    assert message in error


def test_options_may_stand_between_files(notes: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["embed", PACK, "--precision", "int8", notes, "-o", str(out), notes, "--quiet"]) == 0
    assert len(out.read_text().splitlines()) == 4


@pytest.mark.parametrize("arguments", [["-v", "search", PACK], ["search", "-v", PACK], ["search", PACK, "-v"]])
def test_verbose_may_stand_anywhere(arguments: list[str], notes: str) -> None:
    assert main([*arguments, notes, "cat"]) == 0


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["search"]])
def test_json_is_printed_or_written(
    command: list[str], notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command, PACK, *([notes, "cat"] if command == ["search"] else [])]
    path = tmp_path / "out.json"
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, "--json", str(path)]) == 0
    assert json.loads(path.read_text()) == json.loads(printed)
    assert main([*arguments, "--json", str(path)]) == 1
    assert capsys.readouterr().err.endswith(f"{path}: exists; choose another file, or pass --overwrite\n")
    assert main([*arguments, "--json", str(path), "--overwrite"]) == 0


def test_a_word_after_json_is_no_file(notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(["search", PACK, notes, "cat", "--json", "dog"], capsys)
    assert "'dog' does not end in .json; write --json last, or --json FILE.json" in error
    assert not (tmp_path / "dog").exists()


def test_json_is_never_written_over_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.json"
    corpus.write_text('["years of work"]')
    assert main(["search", PACK, str(corpus), "work", "--json", str(corpus), "--overwrite"]) == 1
    assert capsys.readouterr().err == f"embedpack: {corpus}: is one of the inputs; write to another file\n"
    assert corpus.read_text() == '["years of work"]'


def test_a_file_of_a_pack_is_never_an_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(TINY_PACK, pack)
    codebook, manifest = pack / "calibration" / "default.safetensors", pack / "report" / "golden.json"
    for command, output in (
        (["embed", str(pack), "-o"], codebook),
        (["inspect", str(pack), "--json"], manifest),
        (["bench", "accuracy", str(pack), "--data", str(tmp_path), "--json"], manifest),
    ):
        before = output.read_bytes()
        assert main([*command, str(output), "--overwrite"]) == 1
        assert capsys.readouterr().err == f"embedpack: {output}: is one of the inputs; write to another file\n"
        assert output.read_bytes() == before


def test_variants_by_their_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", PACK, "--cache", str(tmp_path), "--threads", "1", "--json"]
    assert main([*command, "--weights", "int8"]) == 0
    assert [found["variant"] for found in json.loads(capsys.readouterr().out)] == ["default-int8"]
    assert main([*command, "--weights", "int8", "--variant", "default-fp32"]) == 2
    message = "no variant has --weights int8; the pack has: default-fp32, default-int8, default-int4\n"
    assert capsys.readouterr().err == f"embedpack: {message}"


def test_search_with_empty_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "docs.json"
    corpus.write_text(
        json.dumps([{"id": "a", "text": ""}, {"id": "b", "text": "the cat sleeps"}, {"id": "c", "text": "x"}])
    )
    command = ["search", PACK, str(corpus), "the cat sleeps", "--json"]
    assert main(command) == 1
    assert "docs.json, item 1: id a: the text is empty; leave it out, or see --on-empty" in capsys.readouterr().err
    assert main([*command, "--on-empty", "skip"]) == 0
    assert [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]] == ["b", "c"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("\udcff", "the query is not valid UTF-8; check the encoding of the terminal"),
        (" ", "the query is empty; pass a text"),
        ("a\0", "the query has a NUL character at position 1; is it binary data?"),
    ],
)
def test_queries_that_cannot_be_used(query: str, message: str, notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, notes, query]) == 1
    assert capsys.readouterr().err == f"embedpack: {message}\n"


def test_python_names_are_options_in_messages(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, notes, "cat", "--truncate-dim", "7"]) == 2
    assert "embedpack: unknown --truncate-dim 7; known: 8, 16, 32\n" in capsys.readouterr().err
