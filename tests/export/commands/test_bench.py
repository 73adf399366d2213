"""embedpack bench on the tiny pack: exit status, text, JSON, page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.pack.folder import read_pack
from embedpack.pack.task_codec import TaskCodec
from embedpack_export.evaluation.cost.measure import Cost
from embedpack_export.evaluation.results import Setting
from embedpack_export.evaluation.scoring.encoding import encode, inspect_inputs
from embedpack_export.evaluation.sweep import SweepRow, recommend
from embedpack_export.metrics.bootstrap import Interval
from embedpack_export.metrics.non_inferiority import non_inferiority
from tests.helpers.evaluation_sets import write_data, write_pairs, write_retrieval
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def accuracy(data: Path, *options: str) -> int:
    return main(["bench", "accuracy", str(TINY_PACK), "--data", str(data), "--threads", "1", "--no-cache", *options])


def settings_of(path: Path) -> list[dict[str, Any]]:
    (task,) = json.loads(path.read_text())["accuracy"]["tasks"]
    return list(task["settings"])


def test_few_queries_are_no_pass(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert accuracy(data, "--variant", "default-fp32", "--precision", "float32", "--json", str(path)) == 1
    shown = capsys.readouterr().out
    assert "tiny-bert compared with its reference (fp32 graph); margin: 0.3 points" in shown
    assert "FAILED: a loss above 0.3 points cannot be ruled out for:\n" in shown
    assert "for:\n  default, default-fp32 32 float32, nDCG@10: not resolvable" in shown
    written = json.loads(path.read_text())
    assert written["accuracy"]["reference"] == "fp32 graph"
    assert written["provenance"]["packages"]["numpy"] == np.__version__
    ndcg, pairs = settings_of(path)
    assert (ndcg["measure"], pairs["measure"]) == ("nDCG@10", "Spearman")
    assert [item["set"] for item in ndcg["sets"]] == ["code/words", "retrieval/words-en"]
    assert ndcg["test"]["difference"] == 0
    assert ndcg["test"]["queries"] == 24
    assert ndcg["worst_language"]["name"] in ("code", "en")
    for item in ndcg["sets"]:
        assert (item["top_10_overlap"], item["rank_biased_overlap"]) == (1, 1)
        assert item["cosine"]["count"] == 32


def test_a_wide_margin_passes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--variant", "default-fp32", "--precision", "float32", "--set", "retrieval/words-en")
    assert accuracy(data, *options, "--max-loss", "2") == 0
    assert "passed: all 1 settings are non-inferior at a margin of 2 points" in capsys.readouterr().out


def test_everything_is_measured_and_whole_float32_counts(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    accuracy(data, "--variant", "default-int8", "--set", "sts/pairs-de-dev", "--json", str(path))
    settings = settings_of(path)
    # 32 and 16 dimensions in all precisions, 8 too.
    assert len(settings) == 21
    assert [item["setting"]["precision"] for item in settings if item["decides_exit_status"]] == ["float32"]
    sizes = {(item["setting"]["dimensions"], item["setting"]["precision"]): item["bytes"] for item in settings}
    assert (sizes[32, "float32"], sizes[16, "4bit"], sizes[8, "binary"]) == (128, 8, 1)


def test_what_is_named_counts(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    options = ("--precision", "int8", "--precision", "binary", "--truncate-dim", "16", "--set", "code/words")
    assert accuracy(data, *options, "--variant", "default-int4", "--json", str(path)) == 1
    found = [
        (result["setting"]["dimensions"], result["setting"]["precision"], result["decides_exit_status"])
        for result in settings_of(path)
    ]
    assert found == [(16, "int8", True), (16, "binary", True)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "code/gone"], "unknown set 'code/gone'"),
        (["--task", "code"], "unknown task 'code'; known: default"),
        (["--variant", "default-int2"], "unknown variant 'default-int2'"),
        (["--precision", "int2"], "argument --precision: unknown value 'int2'; known: float32, "),
        (["--truncate-dim", "12"], "unknown --truncate-dim 12"),
        (["--truncate-dim", "0"], "argument --truncate-dim: '0' is not a whole number of at least 1"),
        (
            ["--weights", "int8", "--variant", "default-int4"],
            "no variant has --weights int8; the pack has: ",
        ),
        (["--limit", "1"], "argument --limit: '1' is not a whole number of at least 2"),
        (["--limit", "5", "--limit", "6"], "argument --limit: given twice; it takes one value"),
        (["--max-loss", "0"], "--max-loss is 0.0; a margin is above 0"),
        (["--adapter", "retrieval"], "--adapter retrieval: expected TASK=DIR"),
        (["--adapter", "a=b", "--adapter", "a=c"], "--adapter names the task 'a' twice"),
        (["--cache", "x"], "--cache and --no-cache exclude each other"),
        (["--limt", "5"], "embedpack bench accuracy: error: unrecognized arguments: --limt 5; did you mean --limit?"),
    ],
)
def test_wrong_options_are_status_2(
    data: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = accuracy(data, *options)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_an_existing_file_is_replaced_only_when_asked(
    option: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out"
    path.write_text("years of work")
    command = ["bench", "sweep" if option == "--html" else "accuracy", str(TINY_PACK), "--data", str(data)]
    assert main([*command, option, str(path)]) == 1
    assert capsys.readouterr().err == f"embedpack: {path}: exists; choose another file, or pass --overwrite\n"
    assert path.read_text() == "years of work"


def test_json_without_a_file_is_printed_in_place_of_text(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--weights", "fp32", "--precision", "float32", "--set", "retrieval/words-en", "--max-loss", "2")
    assert accuracy(data, *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["passed"] is True


@pytest.mark.parametrize(
    ("options", "missing", "extras"),
    [
        ([], ["ir_measures", "scipy"], "bench"),
        (["--reference", "x", "--mteb", "STS12"], ["torch", "mteb"], "reference,mteb"),
        (["--mteb", "STS12"], ["onnx_ir", "ir_measures", "mteb"], "export,bench,mteb"),
    ],
)
def test_all_missing_extras_are_named_before_the_work(
    options: list[str],
    missing: list[str],
    extras: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("embedpack.extras._is_installed", lambda name: name not in missing)
    assert accuracy(data, *options) == 1
    names = ", ".join(map(repr, missing))
    are = "is" if len(missing) == 1 else "are"
    message = f"embedpack: this needs {names}, which {are} not installed. Run: pip install 'embedpack[{extras}]'\n"
    assert capsys.readouterr().err == message


def test_one_empty_text_does_not_end_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_retrieval(tmp_path / "data" / "a")
    write_pairs(tmp_path / "data" / "sts")
    with (folder / "queries.jsonl").open("a") as queries:
        queries.write('{"id": "blank", "text": " "}\n')
    with (folder / "qrels.tsv").open("a") as qrels:
        qrels.write("blank\td0\t1\n")
    with (tmp_path / "data" / "sts" / "pairs.tsv").open("a") as pairs:
        pairs.write("3\t\ta second text\n")
    path = tmp_path / "out.json"
    options = ("--weights", "fp32", "--precision", "float32", "--max-loss", "50", "--json", str(path))
    assert accuracy(tmp_path / "data", *options) == 0
    log = capsys.readouterr().err
    assert "a: left out 1 texts that are empty, of documents and queries\n" in log
    assert "sts: left out 1 pairs with an empty text\n" in log
    (task,) = json.loads(path.read_text())["accuracy"]["tasks"]
    assert [(found["queries"], found["empty"]) for found in task["sets"]] == [(12, 1), (16, 1)]
    assert accuracy(tmp_path / "data", *options, "--overwrite", "--on-empty", "error") == 1
    assert (
        "queries.jsonl, line 13: the text is empty; leave the entry out, or pass --on-empty skip"
        in capsys.readouterr().err
    )


def test_codes_are_those_of_the_embedder(data: Path) -> None:
    model = Embedder(TINY_PACK, weights="int8", threads=1)
    texts = ["the cat sleeps", "list every file of the folder", "warm roof"]
    whole = encode(model, "default", texts, "passage")
    codec = TaskCodec.open(model.pack, "default")
    for precision in ("float32", "float16", "int8", "4bit", "2bit", "ternary", "binary"):
        made = codec.single(whole, precision, 16)
        expected = model.encode(texts, prompt_name="passage", truncate_dim=16, precision=precision)
        assert (made.codes == expected.codes).all(), precision
        assert made.precision == expected.precision


def test_lengths_count_the_prompt_and_special_tokens() -> None:
    pack = read_pack(TINY_PACK)
    short, long = inspect_inputs(pack, "default", ["cat", "cat " * 100], "query")
    # [CLS] query : cat [SEP]
    assert (short.tokens, short.length, short.image) == (5, "1 to 16 tokens", False)
    assert (long.tokens, long.length) == (32, "17 to 64 tokens")


def row(variant: str, size: int, speed: float, loss: float) -> SweepRow:
    test = non_inferiority(-loss, Interval(-loss - 0.1, -loss + 0.1), [5000], margin=0.5)
    setting = Setting(variant, "single", size, "int8")
    return SweepRow(setting=setting, bytes=size, cost=Cost(1, 1, speed), ndcg_at_10=50 - loss, test=test, on_front=True)


def test_the_cheapest_that_is_good_enough_is_recommended() -> None:
    rows = [row("a", 64, 10, 0.1), row("b", 32, 10, 0.45), row("c", 32, 20, 0.45), row("d", 16, 50, 0.9)]
    found = recommend(rows, "single")
    assert found.by_estimate == rows[2].setting
    assert found.by_bound == rows[0].setting
    assert recommend(rows[3:], "single").by_estimate is None


def test_a_sweep_prints_and_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_retrieval(tmp_path / "data" / "a")
    write_pairs(tmp_path / "data" / "sts")
    page, path = tmp_path / "out.html", tmp_path / "out.json"
    options = ["--data", str(tmp_path / "data"), "--variant", "default-fp32", "--max-loss", "50", "--threads", "1"]
    assert main(["bench", "sweep", str(TINY_PACK), *options, "--html", str(page), "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "recommended single vectors: default-fp32 " in shown
    (task,) = json.loads(path.read_text())["sweep"]["tasks"]
    assert task["sets"] == ["a"]
    assert len(task["rows"]) == 21
    first = task["rows"][0]
    assert first["cost"]["file_bytes"] == read_pack(TINY_PACK).manifest.variant_bytes("default-fp32")
    assert 20_000_000 < first["cost"]["peak_rss_bytes"] < 1_000_000_000
    assert first["cost"]["tokens_per_s"] > 0
    whole = next(item for item in task["rows"] if item["bytes"] == 128)
    assert whole["test"]["difference"] == 0
    best = max(task["rows"], key=lambda item: item["ndcg_at_10"])
    assert any(item["on_front"] for item in task["rows"] if item["ndcg_at_10"] == best["ndcg_at_10"])
    assert page.read_text().count("<svg viewBox") == 2


def test_a_sweep_that_finds_nothing_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "data" / "sts")
    assert main(["bench", "sweep", str(TINY_PACK), "--data", str(tmp_path / "data")]) == 1
    assert "no set of queries and documents; a sweep measures rankings" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["accuracy", "sweep"])
def test_help_says_what_the_exit_status_means(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", program, "-h"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Exit status: 0 if" in shown
    assert f"examples:\n  embedpack bench {program}" in shown
