"""The command line, from arguments to exit status and files."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder, Embeddings, MultiEmbeddings, pdf_pages
from embedpack.cli.main import main
from embedpack.inputs.items import Input
from embedpack.pack.folder import read_pack
from embedpack.pack.input_recipes import QwenImage
from embedpack.vectors.codebook import LOW_BIT, Codebook
from embedpack.vectors.codes import PRECISIONS
from embedpack_export.sources.hub import Downloaded
from tests.helpers.exports import tree
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_pack import TINY_PACK

PACK = str(TINY_PACK)
COMMANDS = ("demo", "export", "embed", "search", "rerank", "inspect", "verify")
# In the file of texts of the fixture `files`.
IN_FILE = ["a cat sleeps", "where is the router"]
TEXTS = ["how do i reset the router", "the cat sleeps", "list every file"]


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return str(path)


def status(arguments: list[str]) -> int:
    """Exit status of a command line, also if it is wrong."""
    try:
        return main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)


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
    assert message == f"embedpack: {tmp_path}: not a pack (pack.json is missing); create one with: embedpack export\n"


def test_embed_prints_json_lines(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", PACK, lines, "--prompt-name", "query"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected("query"), atol=1e-6)


def test_embed_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
    assert main(["embed", PACK, "--precision", "binary"]) == 0
    rows = [json.loads(line)["embedding"] for line in capsys.readouterr().out.splitlines()]
    expected = Embedder(PACK).encode(TEXTS, prompt_name="passage", precision="binary").codes
    np.testing.assert_array_equal(rows, expected)


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
        assert json.loads(saved["ids"].tobytes()) == ["k0", "k1", "k2"]
        expected = Embedder(PACK).encode(TEXTS, prompt_name="passage", precision="int8").codes
        np.testing.assert_array_equal(saved["codes"], expected)
        assert (str(saved["precision"]), int(saved["dimensions"])) == ("int8", 32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embed_writes_safetensors_that_load(precision: str, lines: str, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["embed", PACK, lines, "--precision", precision, "--truncate-dim", "16", "-o", str(out)]) == 0
    loaded = Embeddings.load(out)
    assert (len(loaded), loaded.precision, loaded.dimensions) == (3, precision, 16)
    assert (loaded.codebook is not None) == (precision in LOW_BIT)


def test_embed_writes_the_codebook_beside_the_codes(lines: str, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert main(["embed", PACK, lines, "--precision", "2bit", "-o", str(out)]) == 0
    expected = Embedder(PACK).encode("x", precision="2bit").codebook
    assert expected is not None
    with np.load(out) as saved:
        found = Codebook.from_tensors({name: saved[name] for name in saved.files}, "codebook.")
    assert found.id == expected.id


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": "a"}\nnot json\n', "line 2: not a JSON object"),
        ("t.jsonl", b'{"body": "a"}\n', "line 1: no text under 'text' (keys: body); see --column"),
        ("t.jsonl", b'{"text": 3}\n', "line 1: 'text' is a number, not a text; leave the record out"),
        ("t.csv", b"id,body\n1,a\n", "t.csv: no column 'text' (columns: id, body); see --column"),
        ("t.csv", b'text\n"open\n', "not a valid table: unexpected end of data"),
        ("t.txt", b"good\n\xff\xfe\n", "line 2: not UTF-8; convert it, e.g. with iconv -t UTF-8"),
        ("t.jsonl", b'{"text": " "}\n', "line 1: the text is empty; leave it out, or see --on-empty"),
        ("t.txt", b"", "t.txt: the file is empty; leave it out"),
    ],
)
def test_bad_texts_are_refused_and_nothing_is_written(
    name: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["embed", PACK, str(tmp_path / name), "-o", str(tmp_path / "out.npz")]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*arguments: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("embedpack.inputs.files.read_parts", work)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".jsonl"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing/out", "cannot be written: No such file or directory"),
        ("/proc/out", "cannot be written: "),  # root may write to every other read-only folder
        ("existing", "exists; choose another file, or pass --overwrite"),
        ("dangling", "exists; choose another file, or pass --overwrite"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    ending: str, place: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"{place}{ending}"
    if place == "existing":
        output.write_text("years of work")
    if place == "dangling":
        output.symlink_to("nowhere")
    before = tree(tmp_path)
    assert main(["embed", PACK, "-", "-o", str(output)]) == 1
    assert capsys.readouterr().err.startswith(f"embedpack: {output}: {message}")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_input_is_never_the_output(
    overwrite: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"text": "years of work"}\n')
    (tmp_path / "link.jsonl").hardlink_to(tmp_path / "corpus.jsonl")
    for output in ("corpus.jsonl", str(tmp_path / "corpus.jsonl"), "link.jsonl"):
        assert main(["embed", PACK, "-", "corpus.jsonl", "-o", output, *overwrite]) == 1
        assert capsys.readouterr().err == f"embedpack: {output}: is one of the inputs; write to another file\n"
    assert (tmp_path / "corpus.jsonl").read_text() == '{"text": "years of work"}\n'


def test_an_output_is_replaced_when_asked(lines: str, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("old")
    assert main(["embed", PACK, lines, "-o", str(tmp_path / "out.jsonl"), "--overwrite"]) == 0
    assert (tmp_path / "out.jsonl").read_text().count("\n") == len(TEXTS)


@pytest.mark.parametrize("options", [["accuracy", "--json"], ["sweep", "--json"], ["sweep", "--html"]])
def test_an_output_of_bench_that_cannot_be_written_is_refused_before_the_work(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, option = options
    path = tmp_path / "missing" / "out"
    assert main(["bench", command, "/no/pack", "--data", "/no/data", option, str(path)]) == 1
    reason = "No such file or directory; check the path, its permissions and the disk"
    assert capsys.readouterr().err == f"embedpack: {path}: cannot be written: {reason}\n"


def test_an_unknown_ending_is_refused_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "/no/pack", "/no/file", "-o", "out.parquet"]) == 2
    assert "out.parquet: unknown ending '.parquet'; known: .jsonl, .npz, .safetensors" in capsys.readouterr().err


# Images, PDF pages and several files.

LIMIT = 20_000


def names(files: Path, *chosen: str) -> list[str]:
    return [str(files / name) for name in chosen]


def test_embed_takes_several_files_in_their_order(v4: Path, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    sources = names(files, "first.png", "texts.txt", "report.pdf", "second.PPM", "first.png", "texts.txt")
    options = ["--task", "retrieval", "--prompt-name", "passage", "--max-pixels", str(LIMIT), "--precision", "int8"]
    assert main(["embed", str(v4), *sources, *options, "-o", str(out)]) == 0
    first, second = names(files, "first.png", "second.PPM")
    pages = [f"{files / 'report.pdf'}#{number}" for number in range(1, 11)]
    model = Embedder(v4, task="retrieval")
    inputs: list[Input] = [files / "first.png", *IN_FILE, *pdf_pages(files / "report.pdf"), files / "second.PPM"]
    expected = model.encode(
        [*inputs, files / "first.png", *IN_FILE], prompt_name="passage", precision="int8", max_pixels=LIMIT
    )
    with np.load(out) as saved:
        first_texts, second_texts = (
            [f"{files / 'texts.txt'}{count}#{number}" for number in (1, 2)] for count in ("", " (2)")
        )
        assert json.loads(saved["ids"].tobytes()) == [
            first,
            *first_texts,
            *pages,
            second,
            f"{first} (2)",
            *second_texts,
        ]
        assert np.isclose(saved["codes"], expected.codes).mean() > 0.99
        assert (int(saved["max_pixels"]), str(saved["space"])) == (LIMIT, expected.space)


def test_embed_prints_json_lines_of_images(v4: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task", "code", "--adapters", "switchable", "--truncate-dim", "16"]
    assert main(["embed", str(v4), *names(files, "texts.txt", "first.png"), *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = Embedder(v4, adapters="switchable")
    inputs: list[Input] = [*IN_FILE, files / "first.png"]
    expected = model.encode(inputs, task="code", prompt_name="passage", truncate_dim=16)
    assert [row["id"] for row in rows] == ["1", "2", str(files / "first.png")]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected.codes, atol=1e-6)


def test_pages_are_not_held_all_at_once(v4: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[object]] = []
    most = 0

    def pages(path: Path) -> Iterator[np.ndarray]:
        nonlocal most
        for page in pdf_pages(path):
            alive.append(weakref.ref(page))
            most = max(most, sum(item() is not None for item in alive))
            yield page
            del page

    monkeypatch.setattr("embedpack.inputs.files.pdf_pages", pages)
    monkeypatch.setattr("embedpack.inputs.batching.WINDOW_IMAGES", 2)
    assert main(["embed", str(v4), *names(files, "report.pdf"), "--task", "code", "--max-pixels", "4000"]) == 0
    assert len(alive) == 10
    assert most <= 4


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "2bit", "binary"])
def test_embed_writes_multi_vectors(
    precision: str, v4: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = names(files, "texts.txt", "report.pdf", "first.png")
    options = ["--task", "retrieval", "--multi", "--max-pixels", str(LIMIT), "--precision", precision]
    command = ["embed", str(v4), *sources, *options]
    for name in ("out.npz", "out.safetensors", "out.jsonl"):
        assert main([*command, "-o", str(tmp_path / name)]) == 0
    assert main(command) == 0
    inputs: list[Input] = [*IN_FILE, *pdf_pages(files / "report.pdf"), files / "first.png"]
    model = Embedder(v4, task="retrieval")
    expected = model.encode_multi(inputs, prompt_name="passage", precision=precision, max_pixels=LIMIT)
    loaded = MultiEmbeddings.load(tmp_path / "out.safetensors")
    assert (loaded.precision, loaded.max_pixels, loaded.space) == (precision, LIMIT, expected.space)
    assert len(loaded) == 13
    with np.load(tmp_path / "out.npz") as saved:
        pages = [f"{files / 'report.pdf'}#{page}" for page in range(1, 11)]
        assert json.loads(saved["ids"].tobytes()) == ["1", "2", *pages, str(files / "first.png")]
        np.testing.assert_array_equal(saved["codes"], loaded.codes)
        np.testing.assert_array_equal(saved["offsets"], loaded.offsets)
    np.testing.assert_array_equal(loaded.offsets, expected.offsets)
    # Batches of other inputs may round a value otherwise.
    assert np.isclose(loaded.codes, expected.codes, atol=1e-3).mean() > 0.99
    printed = capsys.readouterr().out
    assert (tmp_path / "out.jsonl").read_text() == printed
    rows = [json.loads(line)["embedding"] for line in printed.splitlines()]
    assert [len(row) for row in rows] == loaded.counts.tolist()
    np.testing.assert_allclose(np.concatenate(rows), loaded.codes, atol=1e-6)


def test_embed_pools_multi_vectors_and_only_these(
    v4: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", str(v4), *names(files, "texts.txt"), "--task", "retrieval", "--pool-factor", "2"]
    assert main([*command, "--multi", "-o", str(tmp_path / "out.safetensors")]) == 0
    pooled = Embedder(v4, task="retrieval").encode_multi(IN_FILE, prompt_name="passage", pool_factor=2)
    np.testing.assert_array_equal(MultiEmbeddings.load(tmp_path / "out.safetensors").offsets, pooled.offsets)
    capsys.readouterr()
    assert main([*command, "-o", str(tmp_path / "single.npz")]) == 2
    assert capsys.readouterr().err == ("embedpack: --pool-factor needs --multi: only token vectors are pooled\n")
    assert not (tmp_path / "single.npz").exists()


BROKEN: list[tuple[list[str], list[str], str]] = [
    (["texts.txt", "encrypted.pdf"], [], "encrypted.pdf is encrypted; remove its password first"),
    (["texts.txt", "damaged.pdf"], [], "damaged.pdf is damaged or no PDF; open it in a viewer and save it again"),
    (["first.png", "empty.png"], [], "empty.png is empty (0 bytes); leave it out, or write it again"),
    (["first.png", "damaged.png"], [], "damaged.png "),
    (["first.png", "none.png"], [], "none.png: cannot be read: No such file or directory"),
    (["first.png", "none.pdf"], [], "none.pdf: cannot be read: No such file or directory"),
    (["first.png", "none.txt"], [], "none.txt: cannot be read: No such file or directory"),
]
WRONG_OPTIONS: list[tuple[list[str], str]] = [
    (["--max-pixels", "0"], "argument --max-pixels: '0' is not a whole number of at least 1"),
    (["--max-pixels", "9"], "--max-pixels is 9; this model takes images of at least 3136 pixels"),
    (["--prompt-name", "querry"], "unknown --prompt-name 'querry'; known: query, passage"),
    (["--adapters", "swapped"], "argument --adapters: unknown value 'swapped'; known: merged, switchable"),
    (["--task", "codes"], "unknown task 'codes'; known: retrieval, code; did you mean 'code'?"),
    (["--truncate-dim", "17"], "unknown --truncate-dim 17; known: "),
    (
        ["--multi", "--truncate-dim", "16"],
        "--truncate-dim is 16; the multi-vectors of this model were not trained for",
    ),
    (["--multi", "--pool-factor", "0"], "argument --pool-factor: '0' is not a whole number of at least 1"),
    (["--precision", "int9"], "argument --precision: unknown value 'int9'; known: float32, "),
    (["--precision", "int8", "--precision", "4bit"], "argument --precision: given twice; it takes one value"),
    (["--on-long", "cut"], "argument --on-long: unknown value 'cut'; known: truncate, error"),
    (["--on-empty", "zero", "--precision", "2bit"], "--on-empty zero needs float32, float16 or int8: 2bit codes have"),
    (
        ["--format", "jsn"],
        "argument --format: unknown value 'jsn'; known: lines, jsonl, json, csv, tsv, parquet; did you",
    ),
    (["--precison", "int8"], "unrecognized arguments: --precison int8; did you mean --precision?"),
    (["--variant", "code-int9"], "pass either variant, or task, weights and adapters"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_wrong_options_are_status_2(
    options: list[str], message: str, v4: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "out.npz")]
    task = [] if "--task" in options else ["--task", "code"]
    assert status(["embed", str(v4), *names(files, "first.png"), *task, *options, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("multi", [[], ["--multi"]])
@pytest.mark.parametrize(("sources", "options", "message"), BROKEN, ids=lambda value: "".join(value))
def test_what_cannot_be_embedded_is_told_in_one_line(
    sources: list[str],
    options: list[str],
    message: str,
    multi: list[str],
    v4: Path,
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["-o", str(tmp_path / "out.npz")]
    assert main(["embed", str(v4), *names(files, *sources), "--task", "code", *options, *multi, *out]) == 1
    error = capsys.readouterr().err
    assert error.startswith("embedpack: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapters", "merged"], "this pack has several tasks; pass --task, one of: retrieval, code"),
        (["--adapters", "switchable"], "pass --task, one of: retrieval, code"),
        ([], "this pack has several tasks; pass --task, one of: retrieval, code"),
    ],
)
def test_the_task_must_be_named_where_there_are_several(
    options: list[str], message: str, v4: Path, lines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    for command in (["embed", str(v4), lines, "-o", str(tmp_path / "out.npz")], ["search", str(v4), lines, "a cat"]):
        assert main([*command, *options]) == 2
        assert capsys.readouterr().err == f"embedpack: {message}\n"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["first.png", "report.pdf"])
def test_images_for_a_pack_of_texts_are_refused_before_the_work(
    name: str, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedder, "encode", None)
    assert main(["embed", PACK, *names(files, "texts.txt", name)]) == 1
    assert capsys.readouterr().err == f"embedpack: {files / name}: {PACK} reads texts only, no images\n"


def test_multi_vectors_of_a_pack_without_them(lines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(["embed", PACK, lines, "--multi", "-o", str(tmp_path / "out.npz")]) == 1
    message = "this pack has no multi-vectors; its checkpoint came without a multi-vector projector"
    assert capsys.readouterr().err == f"embedpack: {PACK}: {message}\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_file_is_no_traceback(v4: Path, files: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedpack", "embed", str(v4), str(files / "encrypted.pdf"), "--task", "code"]
    done = subprocess.run([*command, "-o", str(tmp_path / "out.npz")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert not list(tmp_path.iterdir())


def test_search_finds_the_text_itself(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, lines, "the cat sleeps", "list every file", "--top-k", "2", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["hits"][0]["text"] for item in found] == ["the cat sleeps", "list every file"]
    assert all(len(item["hits"]) == 2 for item in found)


def test_search_prints_for_people(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", PACK, lines, "the cat sleeps", "--precision", "binary"]) == 0
    assert "the cat sleeps\n  " in capsys.readouterr().out
    assert status(["search", PACK, lines, "x", "-k", "0"]) == 2
    assert "argument -k/--top-k: '0' is not a whole number of at least 1" in capsys.readouterr().err


def test_search_with_switchable_adapters(v4: Path, lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", str(v4), lines, "the cat sleeps", "--adapters", "switchable", "--json"]
    found = []
    for task in ("retrieval", "code"):
        assert main([*command, "--task", task]) == 0
        found.append(json.loads(capsys.readouterr().out)["hits"])
    assert sorted(hit["text"] for hit in found[0]) == sorted(TEXTS)
    assert found[0] != found[1]


def test_inspect_shows_images_multi_vectors_and_adapters(v4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(v4)]) == 0
    shown = capsys.readouterr().out
    image = read_pack(v4).manifest.image
    assert isinstance(image, QwenImage)
    tokens = 768 + len(image.tokens_before) + len(image.tokens_after)
    for part in (
        "images      3136 to 602112 pixels",
        "vision      int8 ",
        "variant     retrieval-int8 ",
        "variant     switchable-int8 ",
        "token vectors: mean 0.99",
        "  adapter   code ",
        "MB   adapters/code.int8.onnx_adapter\n",
        "space       retrieval: codes calibrated on ",
        "  tokens    ",
        f"multi       16 dimensions per token; the largest image has {tokens} tokens\n",
        f"precision   binary                      2 bytes per token  {2 * tokens:10} bytes for the largest image\n",
    ):
        assert part in shown


def test_verify_of_merged_and_switchable_variants(v4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(v4), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["golden"]) == {"retrieval-int8", "code-int8", "switchable-int8"}


def test_inspect_and_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", PACK]) == 0
    shown = capsys.readouterr().out
    assert "default-int8" in shown
    for part in (
        "space       default: codes calibrated on 240 inputs\n  codes     center",
        "  recall@10 none                 4bit ",
        "precision   4bit                       16 bytes per vector",
        "precision   ternary                     7 bytes per vector",
        "precision   binary                      4 bytes per vector",
    ):
        assert part in shown
    assert main(["inspect", PACK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["single"]["dimensions"] == 32
    assert main(["verify", PACK, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["golden"]) == {"default-fp32", "default-int8", "default-int4"}


def test_export_writes_a_pack_that_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, pack = make_checkpoint(tmp_path / "toy", "xlm-roberta"), tmp_path / "packs" / "toy"
    assert main(["export", str(checkpoint), "-o", str(pack), "--weights", "int8", "--truncate-dim", "24"]) == 0
    assert main(["verify", str(pack)]) == 0
    assert Embedder(pack).truncate_dims == (24, 32)
    assert main(["export", str(checkpoint), "-o", str(pack)]) == 1
    assert "exists; choose another folder, or pass --overwrite" in capsys.readouterr().err


def test_export_of_one_part(v4_checkpoint: Path, calibration: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    options = ["--modality", "text", "--task", "code", "--task", "code", "--adapters", "switchable"]
    files = ["-o", str(pack), "--calibrate", str(calibration)]
    assert main(["export", str(v4_checkpoint), *files, "--weights", "fp32", *options]) == 0
    manifest = read_pack(pack).manifest
    assert (manifest.image, list(manifest.tasks), list(manifest.variants)) == (None, ["code"], ["switchable-fp32"])
    assert (manifest.name, manifest.source.revision) == ("tiny-v4", None)
    assert len(Embedder(pack).encode("a cat")) == 1


def test_export_of_a_repository(
    calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, pack = make_checkpoint(tmp_path / "snapshot"), tmp_path / "pack"
    asked = []

    def download(repository: str, revision: str | None) -> Downloaded:
        asked.append((repository, revision))
        return Downloaded(checkpoint, repository, "c" * 40)

    monkeypatch.setattr("embedpack_export.sources.hub.download", download)
    command = ["export", "tiny-lab/tiny-bert", "-o", str(pack), "--calibrate", str(calibration), "--weights", "fp32"]
    assert main([*command, "--revision", "v2"]) == 0
    manifest = read_pack(pack).manifest
    assert (manifest.name, manifest.source.revision) == ("tiny-lab/tiny-bert", "c" * 40)
    assert main(command) == 1
    assert "exists; choose another folder, or pass --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert asked == [("tiny-lab/tiny-bert", "v2"), ("tiny-lab/tiny-bert", None)]


@pytest.mark.parametrize(
    ("checkpoint", "options", "message"),
    [
        ("FOLDER", ["--revision", "main"], "--revision goes with the owner/name of a repository; FOLDER is a path"),
        ("FOLDER/none", [], "FOLDER/none: no such folder; pass the folder"),
        ("FOLDER/none", ["--revision", "main"], "--revision goes with the owner/name of a repository; FOLDER/none"),
        ("none", [], "none: no such folder; pass the folder"),
        (
            "FOLDER",
            ["--task", "cod"],
            "unknown task 'cod'; known: retrieval, text-matching, code; did you mean 'code'?",
        ),
    ],
)
def test_export_refuses(
    checkpoint: str,
    options: list[str],
    message: str,
    v4_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = checkpoint.replace("FOLDER", str(v4_checkpoint))
    wrong_usage = "--revision" in options
    assert main(["export", source, "-o", str(tmp_path / "pack"), *options]) == (2 if wrong_usage else 1)
    error = capsys.readouterr().err.replace(str(v4_checkpoint), "FOLDER")
    assert error.startswith(f"embedpack: {message}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_export_refuses_images_of_a_model_of_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    command = ["export", str(checkpoint), "-o", str(tmp_path / "pack")]
    assert main([*command, "--modality", "text+image"]) == 1
    assert capsys.readouterr().err == "embedpack: --modality text+image: this model reads texts only\n"
    assert main([*command, "--adapters", "switchable"]) == 1
    assert "switchable adapters were asked for, but the checkpoint has none" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


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
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "pack"), *options]) == 2
    assert capsys.readouterr().err == f"embedpack: {message}\n"


def test_an_adapter_folder_that_holds_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(tmp_path), "-o", str(tmp_path / "pack"), "--adapter"]
    remedy = "--adapter names the folder that PEFT saved"
    assert main([*command, f"a={tmp_path}/no"]) == 1
    assert capsys.readouterr().err == f"embedpack: adapter folder {tmp_path}/no does not exist; {remedy}\n"
    assert main([*command, f"a={tmp_path}"]) == 1
    message = f"embedpack: adapter folder {tmp_path} holds no adapter_config.json; {remedy}\n"
    assert capsys.readouterr().err == message


def test_export_names_all_missing_extras_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embedpack.extras._is_installed", lambda name: False)
    assert main(["export", "lab/model", "-o", str(tmp_path / "pack"), "--reference", "torch"]) == 1
    error = capsys.readouterr().err
    names = ["onnx", "onnx_ir", "torch", "transformers", "peft", "huggingface_hub"]
    assert error.startswith(f"embedpack: this needs {', '.join(map(repr, names))}, which are not installed. Run: pip")
    assert error.endswith("'embedpack[export,reference,hub]'\n")


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, message: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", num_hidden_layers=6)
    script = (
        "import signal, sys; from embedpack_export.assembly import manifest; from embedpack.cli.main import main;"
        # A job in the background inherits that SIGINT is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"manifest.write_manifest = lambda *_: signal.raise_signal({int(number)});"
        f"sys.exit(main(['export', {str(checkpoint)!r}, '-o', {str(tmp_path / 'pack')!r}, '--reference', 'graph']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number
    assert f"embedpack: {message}; no partial file remains" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_an_interrupt_while_a_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("embedpack.cli.main.importlib.import_module", interrupted)
    assert main(["inspect", PACK]) == 130
    assert capsys.readouterr().err == "embedpack: interrupted; no partial file remains\n"


def test_signals_that_are_ignored_stay_ignored(lines: str) -> None:
    script = (
        "import signal, sys; from embedpack.cli import embed, main;"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "run = embed.run; embed.run = lambda options: (signal.raise_signal(signal.SIGHUP), run(options))[1];"
        f"sys.exit(main.main(['embed', {PACK!r}, {lines!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, len(TEXTS))


def test_a_reader_that_stops_early_is_no_error(lines: str) -> None:
    command = f"{sys.executable} -m embedpack embed {PACK} {lines} | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")
