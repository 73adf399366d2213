"""The command line, from arguments to exit status and files."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import make_checkpoint

from embedpack import Embedder, Embeddings
from embedpack.cli import main

PACK = str(Path(__file__).parents[1] / "runtime" / "packs" / "tiny")
COMMANDS = ("demo", "export", "embed", "search", "inspect", "verify")
TEXTS = ["how do i reset the router", "the cat sleeps", "list every file"]


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return str(path)


def expected(prompt_name: str | None = None) -> np.ndarray:
    return Embedder(PACK).encode(TEXTS, prompt_name=prompt_name).decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "-h"])
    assert stopped.value.code == 0
    assert f"examples:\n  embedpack {command}" in capsys.readouterr().out


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["embed"])
    assert stopped.value.code == 2
    assert "PACK" in capsys.readouterr().err


def test_an_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message == f"embedpack: {tmp_path}: no pack here (pack.json is missing); make one with: embedpack export\n"


def test_embed_prints_json_lines(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", PACK, lines, "--prompt-name", "query"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected("query"), atol=1e-6)


def test_embed_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
    assert main(["embed", PACK, "--precision", "binary"]) == 0
    rows = [json.loads(line)["embedding"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_array_equal(rows, Embedder(PACK).encode(TEXTS, precision="binary").codes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", "".join(json.dumps({"key": f"k{i}", "body": text}) + "\n" for i, text in enumerate(TEXTS))),
        ("t.csv", "key,body\n" + "".join(f'k{i},"{text}"\n' for i, text in enumerate(TEXTS))),
    ],
)
def test_embed_reads_columns_and_writes_npz(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    out = tmp_path / "out.npz"
    arguments = ["embed", PACK, str(tmp_path / name), "--column", "body", "--id-column", "key", "--precision", "int8"]
    assert main([*arguments, "-o", str(out)]) == 0
    with np.load(out) as saved:
        assert saved["ids"].tolist() == ["k0", "k1", "k2"]
        np.testing.assert_array_equal(saved["codes"], Embedder(PACK).encode(TEXTS, precision="int8").codes)
        assert (str(saved["precision"]), int(saved["dimensions"])) == ("int8", 32)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "binary"])
def test_embed_writes_safetensors_that_load(precision: str, lines: str, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["embed", PACK, lines, "--precision", precision, "--truncate-dim", "16", "-o", str(out)]) == 0
    loaded = Embeddings.load(out)
    assert (len(loaded), loaded.precision, loaded.dimensions) == (3, precision, 16)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": "a"}\nnot json\n', "line 2: not a JSON object"),
        ("t.jsonl", b'{"body": "a"}\n', "line 1: no text under 'text' (keys: body); see --column"),
        ("t.jsonl", b'{"text": 3}\n', "line 1: no text under 'text'"),
        ("t.csv", b"id,body\n1,a\n", "line 2: no text under 'text' (keys: id, body); see --column"),
        ("t.csv", b'text\n"open\n', "not valid CSV: unexpected end of data"),
        ("t.txt", b"good\n\xff\xfe\n", "line 2: not UTF-8; convert it, e.g. with iconv -t UTF-8"),
        ("t.txt", b"good\n\nlast\n", "line 2: the text is empty; remove the line, or give it a placeholder"),
        ("t.txt", b"", "no texts: the list is empty"),
    ],
)
def test_bad_texts_are_refused_and_nothing_is_written(
    name: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["embed", PACK, str(tmp_path / name), "-o", str(tmp_path / "out.npz")]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_ending_is_refused_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "/no/pack", "/no/file", "-o", "out.parquet"]) == 1
    assert "out.parquet: unknown ending '.parquet'; known: .jsonl, .npz, .safetensors" in capsys.readouterr().err


def test_search_finds_the_text_itself(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, lines, "the cat sleeps", "list every file", "--top-k", "2", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["hits"][0]["text"] for item in found] == ["the cat sleeps", "list every file"]
    assert all(len(item["hits"]) == 2 for item in found)


def test_search_prints_for_people(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, lines, "the cat sleeps", "--precision", "binary"]) == 0
    assert "the cat sleeps\n  " in capsys.readouterr().out
    assert main(["search", PACK, lines, "x", "--top-k", "0"]) == 1
    assert "--top-k is 0; it must be at least 1" in capsys.readouterr().err


def test_inspect_and_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", PACK]) == 0
    shown = capsys.readouterr().out
    assert "default-int8" in shown
    assert "binary                      4 bytes a vector" in shown
    assert main(["inspect", PACK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dimensions"] == 32
    assert main(["verify", PACK, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["golden"]) == {"default-fp32", "default-int8", "default-int4"}


def test_export_writes_a_pack_that_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, pack = make_checkpoint(tmp_path / "toy", "xlm-roberta"), tmp_path / "packs" / "toy"
    assert main(["export", str(checkpoint), "-o", str(pack), "--weights", "int8", "--truncate-dim", "24"]) == 0
    assert main(["verify", str(pack)]) == 0
    assert Embedder(pack).truncate_dims == (24, 32)
    assert main(["export", str(checkpoint), "-o", str(pack)]) == 1
    assert "exists; choose another place, or pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        (["retrieval"], "--adapter retrieval: expected TASK=DIR, e.g. retrieval=adapters"),
        (["a=x", "a=y"], "--adapter names the task 'a' twice"),
    ],
)
def test_export_refuses_unclear_adapters(
    adapters: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for adapter in adapters for word in ("--adapter", adapter)]
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "pack"), *options]) == 1
    assert capsys.readouterr().err == f"embedpack: {message}\n"


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", num_hidden_layers=6)
    script = (
        "import os, signal, sys; from embedpack_export import pipeline; from embedpack.cli import main;"
        "pipeline.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGINT);"
        f"sys.exit(main(['export', {str(checkpoint)!r}, '-o', {str(tmp_path / 'pack')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert "interrupted; nothing was left half-written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_reader_that_stops_early_is_no_error(lines: str) -> None:
    command = f"{sys.executable} -m embedpack embed {PACK} {lines} | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")
