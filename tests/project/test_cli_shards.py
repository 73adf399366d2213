"""embedpack embed --shard-size: shards, runs that go on, refusals."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Embeddings
from embedpack.cli.main import main
from embedpack.corpus.journal import Journal, Run, Shard
from embedpack.errors import InputError
from tests.helpers.tiny_pack import TINY_PACK

PACK = str(TINY_PACK)
RUN = Run(pack="p", variant="v", settings={"precision": "int8"}, inputs="i", shard_size=2)
WORDS = ("cat", "router", "file", "reset", "sleeps", "list", "every")


def corpus(folder: Path, count: int) -> str:
    path = folder / "docs.jsonl"
    texts = [" ".join(WORDS[(row + step) % 7] for step in range(1 + row % 5)) for row in range(count)]
    path.write_text("".join(json.dumps({"id": f"d{row}", "text": text}) + "\n" for row, text in enumerate(texts)))
    return str(path)


def shards(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f"{output.stem}-*{output.suffix}"))


def ids(output: Path) -> list[str]:
    return [name for path in shards(output) for name in Embeddings.load(path).ids or ()]


def test_shards_have_the_vectors_of_one_file(tmp_path: Path) -> None:
    docs = corpus(tmp_path, 10)
    output, whole = tmp_path / "out.npz", tmp_path / "whole.npz"
    assert main(["embed", PACK, docs, "--shard-size", "4", "-o", str(output), "--json", str(tmp_path / "s.json")]) == 0
    assert main(["embed", PACK, docs, "-o", str(whole)]) == 0
    parts = [Embeddings.load(path) for path in shards(output)]
    assert [path.name for path in shards(output)] == ["out-00000.npz", "out-00001.npz", "out-00002.npz"]
    assert list(map(len, parts)) == [4, 4, 2]
    assert ids(output) == [f"d{row}" for row in range(10)]
    assert not output.exists()
    vectors = np.concatenate([part.codes for part in parts])
    assert np.allclose(vectors, Embeddings.load(whole).codes, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "s.json").read_text())["vectors"] == 10


def test_a_run_goes_on_with_the_shards_that_are_missing(tmp_path: Path) -> None:
    docs, output = corpus(tmp_path, 10), tmp_path / "out.jsonl"
    command = ["embed", PACK, docs, "--shard-size", "3", "--resume", "-o", str(output)]
    assert main(command) == 0
    expected = [path.read_bytes() for path in shards(output)]
    journal = tmp_path / "out.shards.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    kept, again = shards(output)[0], shards(output)[1]
    # Ended behind the second shard, before its line was whole.
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:7])
    again.write_text("not whole")
    before = kept.stat().st_mtime_ns
    assert main(command) == 0
    assert kept.stat().st_mtime_ns == before
    assert [path.read_bytes() for path in shards(output)] == expected
    assert journal.read_bytes() == b"".join(lines)
    again.unlink()
    assert main(command) == 0
    assert [path.read_bytes() for path in shards(output)] == expected


def test_a_shard_without_vectors_is_done(tmp_path: Path) -> None:
    docs, output = tmp_path / "docs.jsonl", tmp_path / "out.npz"
    texts = {"a": "", "b": " ", "c": "x", "d": ""}
    docs.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    command = ["embed", PACK, str(docs), "--shard-size", "2", "--on-empty", "skip", "--resume", "-o", str(output)]
    assert main(command) == 0
    assert ids(output) == ["c"]
    assert [path.name for path in shards(output)] == ["out-00001.npz"]
    assert main(command) == 0


def test_a_corpus_from_standard_input_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.npz"
    command = ["embed", PACK, "-", "--shard-size", "1", "--resume", "-o", str(output)]
    for text in (b"a cat\na file\n", b"a cat\na file\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert main(command) == 0
    assert ids(output) == ["1", "2"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"another\na file\n")))
    assert main(command) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--precision", "int8"], "has precision 'float32', not 'int8'"),
        (["--shard-size", "3"], "has another shard_size"),
        (["--threads", "1"], None),
    ],
)
def test_another_run_does_not_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: list[str], message: str | None
) -> None:
    docs, output = corpus(tmp_path, 4), tmp_path / "out.npz"
    command = ["embed", PACK, docs, "-o", str(output)]
    size = ["--shard-size", "2"]
    assert main([*command, *size]) == 0
    before = [path.read_bytes() for path in shards(output)]
    capsys.readouterr()
    changed = changed if changed[0] == size[0] else [*size, *changed]
    assert main([*command, "--resume", *changed]) == (0 if message is None else 1)
    assert message is None or message in capsys.readouterr().err
    assert [path.read_bytes() for path in shards(output)] == before


def test_shards_have_one_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", PACK, corpus(tmp_path, 4), "--shard-size", "2", "--resume", "-o"]
    assert main([*command, str(tmp_path / "out.npz")]) == 0
    capsys.readouterr()
    assert main([*command, str(tmp_path / "out.jsonl")]) == 1
    assert "has format '.npz', not '.jsonl'" in capsys.readouterr().err
    assert shards(tmp_path / "out.jsonl") == []


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs, output = corpus(tmp_path, 4), str(tmp_path / "out.npz")
    command = ["embed", PACK, docs, "-o", output]
    for arguments, message in (
        (["embed", PACK, docs, "--shard-size", "2"], "--shard-size needs -o"),
        ([*command, "--resume"], "--resume needs --shard-size"),
        ([*command, "--shard-size", "2", "--resume", "--overwrite"], "pass one of them"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert main([*command, "--shard-size", "1"]) == 0
    assert main([*command, "--shard-size", "1"]) == 1
    assert "out.shards.jsonl: exists" in capsys.readouterr().err
    assert main([*command, "--shard-size", "3", "--overwrite"]) == 0
    assert [path.name for path in shards(Path(output))] == ["out-00000.npz", "out-00001.npz"]
    (tmp_path / "out.shards.jsonl").unlink()
    assert main([*command, "--shard-size", "1", "--resume"]) == 1
    assert "out-00000.npz: exists, and no journal" in capsys.readouterr().err


@given(st.lists(st.integers(0, 50), unique=True, max_size=8), st.integers(0, 400))
def test_a_journal_that_was_cut_off_has_a_beginning_of_its_shards(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "out.shards.jsonl"
    journal = Journal.begin(path, RUN)
    begun = path.stat().st_size
    for number in numbers:
        journal.add(Shard(number, 2))
    content = path.read_bytes()
    path.write_bytes(content[: begun + cut])
    found = Journal.resume(path, RUN)
    assert list(found.done) == numbers[: len(found.done)]
    assert len(found.done) == path.read_bytes().count(b"\n") - 1
    found.add(Shard(99, 1))
    assert Journal.resume(path, RUN).done == found.done


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"pack": 1}\n', b"\xff\n", b"\0" * 100])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.shards.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no journal of embed"):
        Journal.resume(path, RUN)
    assert path.read_bytes() == content


def test_a_run_that_is_killed_makes_at_most_one_shard_again(tmp_path: Path) -> None:
    docs, output = corpus(tmp_path, 3000), tmp_path / "out.npz"
    command = [sys.executable, "-m", "embedpack", "embed", PACK, docs, "--shard-size", "20", "--resume", "--quiet"]
    command += ["-o", str(output)]
    done: dict[str, int] = {}
    for wanted in (5, 60):
        with subprocess.Popen(command) as process:
            while len(shards(output)) < wanted and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        again = [name for name, time_ns in done.items() if (tmp_path / name).stat().st_mtime_ns != time_ns]
        assert len(again) <= 1
        done = {path.name: path.stat().st_mtime_ns for path in shards(output)}
    assert subprocess.run(command, check=False).returncode == 0
    again = [name for name, time_ns in done.items() if (tmp_path / name).stat().st_mtime_ns != time_ns]
    assert len(again) <= 1
    assert ids(output) == [f"d{row}" for row in range(3000)]
