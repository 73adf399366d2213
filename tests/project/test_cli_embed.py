"""embedpack embed: prompts of files, texts that cannot be used, outputs, the summary."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from embedpack import Embedder, Embeddings, MultiEmbeddings
from embedpack.cli.main import main
from embedpack.cli.options import ADAPTERS, DEVICES, MAX_THREADS, PRECISIONS, WEIGHTS
from embedpack.engine import devices, options
from embedpack.pack import strict
from embedpack.vectors import codes
from tests.helpers.tiny_pack import TINY_PACK

PACK = str(TINY_PACK)
TEXTS = ["how do i reset the router", "the cat sleeps", "list every file"]


def corpus(folder: Path, *texts: object, name: str = "docs.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps({"id": f"d{row}", "text": text}) + "\n" for row, text in enumerate(texts)))
    return str(path)


def embedded(path: Path) -> dict[str, list[float]]:
    """Vectors of a file of JSON lines by id."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["id"]: line["embedding"] for line in lines}


def test_choices_are_those_of_the_pack_format() -> None:
    assert PRECISIONS == codes.PRECISIONS
    assert MAX_THREADS == options.MAX_THREADS
    assert get_args(strict.WeightsFormat) == WEIGHTS
    assert get_args(strict.AdapterMode) == ADAPTERS
    assert get_args(devices.DeviceOption) == DEVICES


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, "query", "document"),
        ({"query": "q: ", "passage": "p: "}, "query", "passage"),
        ({"query": "q: "}, "query", ""),
        ({"query": "q: ", "corpus": "c: "}, None, "corpus"),
        ({}, None, ""),
    ],
)
def test_files_have_the_prompt_of_documents(
    prompts: dict[str, str], default: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = with_prompts(tmp_path / "pack", prompts, default)
    out = tmp_path / "out.jsonl"
    assert main(["embed", str(pack), corpus(tmp_path, *TEXTS), "-o", str(out)]) == 0
    summary = capsys.readouterr().err
    assert (f", prompt {expected or 'none'}, " in summary) == bool(prompts)
    vectors = Embedder(pack).encode(TEXTS, prompt_name=expected).codes
    np.testing.assert_allclose(list(embedded(out).values()), vectors, atol=1e-6)
    assert main(["inspect", str(pack)]) == 0
    shown = capsys.readouterr().out
    assert f"documents and files {expected or 'none'}\n" in shown or not prompts
    assert f"default {default or 'none'}, queries " in shown or not prompts


def with_prompts(folder: Path, prompts: dict[str, str], default: str | None) -> Path:
    """The tiny pack with other prompts."""
    shutil.copytree(TINY_PACK, folder)
    content = json.loads((TINY_PACK / "pack.json").read_text())
    structured = {name: {"prefix": prefix} for name, prefix in prompts.items()}
    content["tasks"]["default"] |= {"prompts": structured, "default_prompt_name": default}
    (folder / "pack.json").write_text(json.dumps(content))
    return folder


def test_search_uses_the_prompt_of_each_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = with_prompts(tmp_path / "pack", {"query": "query: ", "document": "passage: "}, "query")
    assert main(["search", str(pack), corpus(tmp_path, *TEXTS), "reset the router", "--json"]) == 0
    found = {hit["id"]: hit["score"] for hit in json.loads(capsys.readouterr().out)["hits"]}
    model = Embedder(pack)
    query = model.encode("reset the router", prompt_name="query").decode()
    scores = (query @ model.encode(TEXTS, prompt_name="document").decode().T)[0]
    np.testing.assert_allclose([found[f"d{row}"] for row in range(3)], scores, atol=1e-3)


EMPTY = [TEXTS[0], " ", TEXTS[1], ""]


@pytest.mark.parametrize("ending", [".jsonl", ".npz"])
@pytest.mark.parametrize("policy", ["skip", "zero"])
def test_empty_texts(policy: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"out{ending}"
    assert main(["embed", PACK, corpus(tmp_path, *EMPTY), "--on-empty", policy, "-o", str(out)]) == 0
    log = capsys.readouterr().err
    if ending == ".npz":
        loaded = Embeddings.load(out)
        assert loaded.ids is not None
        vectors = dict(zip(loaded.ids, loaded.codes, strict=True))
    else:
        vectors = {name: np.array(values) for name, values in embedded(out).items()}
    expected = Embedder(PACK).encode(TEXTS[:2], prompt_name="passage").codes
    assert list(vectors) == (["d0", "d2"] if policy == "skip" else ["d0", "d1", "d2", "d3"])
    np.testing.assert_allclose([vectors["d0"], vectors["d2"]], expected, atol=1e-6)
    assert not any(vectors[name].any() for name in vectors if name in ("d1", "d3"))
    assert f"2 empty texts: {'were skipped' if policy == 'skip' else 'vectors are zeros'}\n" in log


@pytest.mark.parametrize("multi", [[], ["--multi"]])
def test_empty_texts_of_multi_vectors(multi: list[str], v4: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    command = ["embed", str(v4), corpus(tmp_path, *EMPTY), "--task", "code", *multi, "-o", str(out)]
    assert main([*command, "--on-empty", "skip"]) == 0
    kind = MultiEmbeddings if multi else Embeddings
    assert kind.load(out).ids == ("d0", "d2")
    assert main([*command, "--on-empty", "zero", "--overwrite"]) == 0
    loaded = kind.load(out)
    assert loaded.ids == ("d0", "d1", "d2", "d3")
    assert not loaded[1].codes.any()
    assert loaded[2].codes.any()


def test_an_empty_text_is_an_error_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = corpus(tmp_path, *EMPTY)
    assert main(["embed", PACK, path, "-o", str(tmp_path / "out.npz")]) == 1
    message = f"embedpack: {path}, line 2: id d1: the text is empty; leave it out, or see --on-empty\n"
    assert capsys.readouterr().err == message


LONG = "cat " * 99


@pytest.mark.parametrize("output", ["out.jsonl", "out.npz"])
def test_inputs_that_cannot_be_used_are_skipped_and_named(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus(tmp_path, TEXTS[0], "bad\0", LONG, 3, TEXTS[1], LONG)
    command = ["embed", PACK, path, "--on-long", "error", "-o", str(tmp_path / output)]
    assert main([*command, "--on-error", "skip"]) == 0
    log = capsys.readouterr().err.splitlines()
    tokens = "the text has more than the 32 tokens of the model; split it, or pass on_long='truncate'"
    assert log[:-1] == [
        f"skipped: {path}, line 2: id d1: the text has a NUL character at position 3; is it binary data?",
        f"skipped: {path}, line 4: id d3: 'text' is a number, not a text; leave the record out",
        f"skipped: {path}, line 3 (id d2): {tokens}",
        f"skipped: {path}, line 6 (id d5): {tokens}",
        "4 inputs could not be used and were skipped",
    ]
    assert log[-1].startswith("2 vectors, 32 x float32, prompt passage, ")
    names = list(embedded(tmp_path / output)) if output == "out.jsonl" else Embeddings.load(tmp_path / output).ids
    assert list(names or ()) == ["d0", "d4"]


def test_a_long_text_is_named_by_file_line_and_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = corpus(tmp_path, *TEXTS), corpus(tmp_path, "a cat", LONG, name="more.jsonl")
    assert main(["embed", PACK, first, second, "--on-long", "error", "-o", str(tmp_path / "out.npz")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"embedpack: {second}, line 2 (id d1): the text has more than the 32 tokens of the model; "
        "split it, or pass --on-long truncate"
    )


def test_truncated_texts_are_counted_over_all_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path, LONG, "a cat")
    corpus(tmp_path, LONG, name="more.jsonl")
    pack = str(Path(PACK).resolve())
    monkeypatch.chdir(tmp_path)
    assert main(["embed", pack, "docs.jsonl", "more.jsonl", "-o", "out.npz"]) == 0
    message = "Truncated 2 of 3 texts to 32 tokens: docs.jsonl#d0, more.jsonl#d0 (--on-long error stops instead)\n"
    assert message in capsys.readouterr().err


def test_truncated_texts_are_listed_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [LONG if number % 2 else "" if number % 5 == 0 else "a cat" for number in range(20)]
    command = ["embed", PACK, corpus(tmp_path, *texts), "--on-empty", "skip", "--precision", "int8"]
    assert main([*command, "-o", str(tmp_path / "out.npz"), "--json", str(tmp_path / "summary.json")]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary.pop("seconds") >= 0
    assert summary == {
        **{"vectors": 18, "multi": False, "dimensions": 32, "precision": "int8", "prompt_name": "passage"},
        "texts": 18,
        "truncated": {"count": 10, "max_tokens": 32, "ids": [f"d{number}" for number in range(1, 20, 2)]},
        **{"empty": 2, "skipped": 0},
    }
    log = capsys.readouterr().err
    assert "Truncated 10 of 18 texts to 32 tokens: d1, d3, d5, d7, d9, ... (--on-long error stops instead)\n" in log
    assert main([*command, "-o", str(tmp_path / "more.npz"), "--json", str(tmp_path / "summary.json")]) == 1
    assert "summary.json: exists; choose another file, or pass --overwrite" in capsys.readouterr().err
    assert not (tmp_path / "more.npz").exists()


def test_search_names_truncated_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, corpus(tmp_path, "a cat", LONG, "", LONG), "a cat", "--on-empty", "skip"]) == 0
    log = capsys.readouterr().err
    assert "Truncated 2 of 3 texts to 32 tokens: d1, d3 (" in log
    assert "1 of 4 texts are empty" in log


def test_the_list_of_truncated_texts_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.engine.call_stats.MAX_LISTED", 3)
    monkeypatch.setattr("embedpack.inputs.batching.WINDOW_ITEMS", 2)
    command = ["embed", PACK, corpus(tmp_path, *[LONG] * 7), "-o", str(tmp_path / "out.npz")]
    assert main([*command, "--json", str(tmp_path / "summary.json")]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["truncated"] == {"count": 7, "max_tokens": 32, "ids": ["d0", "d1", "d2"]}


def test_a_summary_and_vectors_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", PACK, corpus(tmp_path, "a cat"), "--json"]
    assert main(command) == 2
    assert "--json and the vectors cannot both be written to standard output; pass -o" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "out.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["vectors"] == 1


def test_files_that_cannot_be_used_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    sources = [str(tmp_path / "gone.jsonl"), str(tmp_path / "empty.txt"), corpus(tmp_path, *TEXTS)]
    out = tmp_path / "out.npz"
    assert main(["embed", PACK, *sources, "--on-error", "skip", "-o", str(out)]) == 0
    gone, empty, count, summary = capsys.readouterr().err.splitlines()
    assert gone.startswith(f"skipped: {sources[0]}: cannot be read: No such file")
    assert empty == f"skipped: {sources[1]}: the file is empty; leave it out"
    assert count == "2 inputs could not be used and were skipped"
    assert summary.startswith("3 vectors, ")
    assert main(["embed", PACK, sources[0], "--on-error", "skip", "-o", str(tmp_path / "none.npz")]) == 1
    assert "no vectors: every input is empty or was skipped" in capsys.readouterr().err


def test_nothing_is_written_if_every_input_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output in ("out.jsonl", "out.npz"):
        command = ["embed", PACK, corpus(tmp_path, "", " "), "--on-empty", "skip", "-o", str(tmp_path / output)]
        assert main(command) == 1
        assert "embedpack: no vectors: every input is empty or was skipped\n" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["docs.jsonl"]


def test_pages_and_images_that_cannot_be_used(
    v4: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(files / name) for name in ("first.png", "damaged.png", "second.PPM", "encrypted.pdf", "texts.txt")]
    out = tmp_path / "out.npz"
    assert main(["embed", str(v4), *sources, "--task", "code", "--on-error", "skip", "-o", str(out)]) == 0
    log = capsys.readouterr().err.splitlines()
    assert [
        line.startswith(f"skipped: {source} ") for line, source in zip(log, (sources[1], sources[3]), strict=False)
    ] == [True, True]
    assert Embeddings.load(out).ids == (sources[0], sources[2], "1", "2")


def test_compressed_and_tabular_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(Path(corpus(tmp_path, *TEXTS)).read_bytes()))
    (tmp_path / "b.tsv").write_text("id\ttext\nt1\tthe cat sleeps\n")
    (tmp_path / "c.json").write_text('[{"_id": "j1", "text": "list every file"}]')
    sources = [str(tmp_path / name) for name in ("a.jsonl.gz", "b.tsv", "c.json")]
    out = tmp_path / "out.jsonl"
    assert main(["embed", PACK, *sources, "-o", str(out)]) == 0
    vectors = embedded(out)
    assert list(vectors) == ["d0", "d1", "d2", "t1", "j1"]
    np.testing.assert_allclose([vectors["t1"], vectors["j1"]], [vectors["d1"], vectors["d2"]], atol=1e-6)


def test_a_text_in_place_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", PACK, "hello world"]) == 1
    message = f"embedpack: hello world: no such file; for a text: echo TEXT | embedpack embed {PACK} -\n"
    assert capsys.readouterr().err == message


def test_a_dash_is_standard_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a cat\n")))
    assert main(["embed", PACK, "-", "-o", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "1"


@pytest.mark.parametrize("arguments", [["--quiet", "embed", PACK], ["embed", PACK, "--quiet"]])
def test_quiet_means_errors_only(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text(f"a cat\n\n{LONG}\n")
    assert main([*arguments, str(tmp_path / "notes.txt"), "-o", str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().err == ""
    assert logging.getLogger("embedpack").handlers == []


def test_an_id_that_is_not_utf8_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/scan\xff.png")
    Path(path).write_bytes(b"")
    assert main(["embed", PACK, path]) == 1
    assert "the name is not UTF-8, so it cannot be an id; rename the file" in capsys.readouterr().err
