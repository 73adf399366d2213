"""Names from packs, checkpoints and corpora cannot change the display of a terminal."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from embedpack.cli.main import main
from embedpack.cli.terminal import VisibleFormatter, visible, visible_output
from tests.helpers.tiny_pack import TINY_PACK

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
SHOWN = r"\u001b]0;owned\u0007\u001b[31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain: ü, 猫, 🐈\n\tline", "plain: ü, 猫, 🐈\n\tline"),
        (ESCAPE, SHOWN),
        ("a\rb\x7f\x9b2J\0", r"a\u000db\u007f\u009b2J\u0000"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_json_stays_json() -> None:
    text = json.dumps({"name": "a\x9b2J\x1b\ud800"}, ensure_ascii=False)
    assert json.loads(visible(text)) == {"name": "a\x9b2J\x1b\ud800"}


def test_everything_printed_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    with visible_output():
        sys.stdout.write(f"{ESCAPE}\n")
        assert sys.stdout.isatty() is False
    sys.stdout.write("\x1b\n")
    assert capsys.readouterr().out == f"{SHOWN}\n\x1b\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_json_lines_are_visible_on_a_terminal_and_unchanged_elsewhere(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "a\x9b2J", "text": "a cat sleeps"}) + "\n", "utf-8")
    assert main(["embed", str(TINY_PACK), str(corpus), "--precision", "binary"]) == 0
    stream.seek(0)
    line = stream.read()
    assert ("\x9b" in line) is not terminal
    assert json.loads(line)["id"] == "a\x9b2J"


def test_everything_logged_is_visible() -> None:
    record = logging.LogRecord("embedpack", logging.INFO, "", 0, "name %s", (ESCAPE,), None)
    assert VisibleFormatter("%(message)s").format(record) == f"name {SHOWN}"


def test_errors_are_visible(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"/no/{ESCAPE}"]) == 1
    assert capsys.readouterr().err.startswith(f"embedpack: /no/{SHOWN}: not a pack")


def test_names_of_a_pack_are_visible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((TINY_PACK / "pack.json").read_text("utf-8"))
    manifest["name"] = ESCAPE
    (tmp_path / "pack.json").write_text(json.dumps(manifest), "utf-8")
    assert main(["inspect", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert SHOWN in output
    assert "\x1b" not in output


def test_hits_of_a_search_are_visible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": ESCAPE, "text": f"a cat {ESCAPE} sleeps"}) + "\n", "utf-8")
    assert main(["search", str(TINY_PACK), str(corpus), f"cat {ESCAPE}"]) == 0
    output = capsys.readouterr().out
    assert output.count(SHOWN) == 3
    assert "\x1b" not in output


def test_a_full_memory_is_no_fault_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("embedpack.cli.inspect.run", full)
    assert main(["inspect", str(TINY_PACK)]) == 1
    assert capsys.readouterr().err == ("embedpack: the memory is full; free some, or pass fewer or smaller inputs\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_encoding_without_some_characters(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a cat, 猫\n", "utf-8")
    for options, shown in (([], rb"a cat, \u732b"), (["--json"], "a cat, 猫".encode())):
        content = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding))
        assert main(["search", str(TINY_PACK), str(corpus), "cat", *options]) == 0
        assert shown in content.getvalue()


def test_standard_output_that_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["inspect"], ["inspect", "--json"], ["embed"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a cat\n")))
        with open("/dev/full", "w") as full:  # noqa: PTH123
            monkeypatch.setattr(sys, "stdout", full)
            assert main([command[0], str(TINY_PACK), *command[1:]]) == 1
        message = "standard output: cannot be written: No space left on device"
        assert capsys.readouterr().err.startswith(f"embedpack: {message}")


def test_a_process_without_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("a cat\n")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["embed", str(TINY_PACK), str(tmp_path / "notes.txt")]) == 1
    assert "there is no standard output; write to a file with -o" in capsys.readouterr().err
    assert main(["inspect", str(TINY_PACK)]) == 0
