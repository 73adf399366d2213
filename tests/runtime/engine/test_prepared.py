"""Prepacked graphs: the same vectors, and no damaged, foreign or hostile file is loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from embedpack import CapacityError, Embedder, PackError
from embedpack.cli.main import main
from embedpack.engine import prepare as prepare_module
from embedpack.engine.encoder import Encoder
from embedpack.engine.loading import PackGraph
from embedpack.engine.options import EncodeOptions
from embedpack.engine.prepare import disk_bytes, graphs_of, prepare_variant
from embedpack.engine.prepared import GRAPH, RECORD, cache_folder, find_prepared, read_prepared
from embedpack.engine.session import SAVED_WEIGHTS, GraphSession
from embedpack.engine.token_budgets import BudgetTimes, best_budget
from embedpack.pack.digests import describe_file
from embedpack.pack.folder import read_pack
from embedpack.storage.temporary import temporary_folder

# onnxruntime cannot save products of 4-bit blocks.
SAVED = ("fp32", "int8")
TEXTS = ["a cat", "the dog", *("read every label " * count for count in range(1, 9))]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for Embedder; batches are not measured."""
    monkeypatch.setenv("EMBEDPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare_module, "measure_budgets", lambda *_: BudgetTimes(48, {48: 100.0}))
    found = cache_folder()
    assert found is not None
    return found


def graph_of(pack: Path, weights: str) -> PackGraph:
    return graphs_of(read_pack(pack), f"default-{weights}")[0]


def prepare(pack: Path, cache: Path, weights: str = "fp32") -> Path:
    """Prepare a variant; its folder."""
    done = prepare_variant(read_pack(pack), f"default-{weights}", 1, cache)
    return Path(done.graphs[0].folder)


def rows_of_a_batch(encoder: Encoder) -> int:
    batches = encoder.batches(list(encoder.processor.items(["cat"] * 100)), EncodeOptions())
    return max(len(batch.rows) for batch in batches)


def loads_prepared(pack: Path, monkeypatch: pytest.MonkeyPatch, weights: str = "fp32") -> bool:
    """True if Embedder takes a prepared graph; its vectors are right in any case."""
    loaded: list[Path] = []
    original = GraphSession.__init__

    def load(self: GraphSession, graph: Path, *arguments: Any, **options: Any) -> None:
        loaded.append(graph)
        original(self, graph, *arguments, **options)

    plain = one_by_one(Embedder(pack, weights=weights, threads=1, prepared=False))
    with monkeypatch.context() as patch:
        patch.setattr(GraphSession, "__init__", load)
        model = Embedder(pack, weights=weights, threads=1)
    assert np.array_equal(plain, one_by_one(model))
    return loaded[-1].name == GRAPH


def one_by_one(model: Embedder) -> npt.NDArray[np.float32]:
    """Vectors of texts alone: the budget of batches, which may differ, has no part in them."""
    return np.concatenate([model.encode(text).codes for text in TEXTS])


@pytest.mark.parametrize("weights", SAVED)
def test_vectors_are_the_same_bit_by_bit(
    tiny: Path, cache: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not loads_prepared(tiny, monkeypatch, weights)
    prepare(tiny, cache, weights)
    assert loads_prepared(tiny, monkeypatch, weights)


def test_of_blocks_only_batches_are_prepared(
    tiny: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(tiny, cache, "int4")
    assert [path.name for path in folder.iterdir()] == [RECORD]
    assert not loads_prepared(tiny, monkeypatch, "int4")
    assert prepare(tiny, cache, "int4") == folder
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    assert rows_of_a_batch(Embedder(tiny, weights="int4", threads=1)._encoder) == 48 // 3


def test_it_is_told_and_can_be_switched_off(
    tiny: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(tiny, cache)
    with caplog.at_level("INFO"):
        Embedder(tiny, weights="fp32", threads=1)
    assert f"default-fp32.onnx: loaded as prepared for this host, from {folder}" in caplog.messages
    caplog.clear()
    Embedder(tiny, weights="fp32", threads=1, prepared=False)
    monkeypatch.setenv("EMBEDPACK_CACHE", "")
    Embedder(tiny, weights="fp32", threads=1)
    assert caplog.messages == []


def test_batches_take_the_measured_budget_of_these_threads(tiny: Path, cache: Path) -> None:
    prepare(tiny, cache)
    assert rows_of_a_batch(Embedder(tiny, weights="fp32", threads=1)._encoder) == 48 // 3
    assert rows_of_a_batch(Embedder(tiny, weights="fp32", threads=2)._encoder) == 256 // 3


def test_budgets_of_several_thread_counts_are_kept(tiny: Path, cache: Path) -> None:
    folder = prepare(tiny, cache)
    prepare_variant(read_pack(tiny), "default-fp32", 2, cache)
    assert json.loads((folder / RECORD).read_bytes())["token_budgets"] == {"1": 48, "2": 48}


def test_what_is_whole_is_kept_and_what_is_damaged_written_again(
    tiny: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(tiny, cache)
    before = (folder / SAVED_WEIGHTS).stat().st_mtime_ns
    prepare(tiny, cache)
    assert (folder / SAVED_WEIGHTS).stat().st_mtime_ns == before
    content = bytearray((folder / SAVED_WEIGHTS).read_bytes())
    content[5000] ^= 1
    (folder / SAVED_WEIGHTS).write_bytes(content)
    caplog.clear()
    prepare(tiny, cache)
    assert caplog.messages[0] == f"{folder / SAVED_WEIGHTS}: changed since it was prepared; it is written again"
    assert (
        describe_file(folder / SAVED_WEIGHTS)
        == read_prepared(folder, graph_of(tiny, "fp32").identity).record.files[SAVED_WEIGHTS]
    )
    assert loads_prepared(tiny, monkeypatch)
    assert [path.name for path in cache.iterdir()] == [folder.name]


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        record = json.loads((folder / RECORD).read_bytes())
        change(record)
        (folder / RECORD).write_text(json.dumps(record))

    return apply


def link(folder: Path, name: str) -> None:
    shutil.move(folder / name, folder.parent.parent / name)
    (folder / name).symlink_to(folder.parent.parent / name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shorten(folder / GRAPH), "graph.onnx: expected "),
        (lambda folder: flip(folder / GRAPH), "graph.onnx: changed since it was prepared"),
        (lambda folder: shorten(folder / SAVED_WEIGHTS), "weights.bin: expected "),
        (lambda folder: flip(folder / SAVED_WEIGHTS), "weights.bin: changed since it was prepared"),
        (lambda folder: (folder / SAVED_WEIGHTS).unlink(), "weights.bin: cannot be read: No such file"),
        (lambda folder: (folder / RECORD).unlink(), "prepared.json: cannot be read: No such file"),
        (lambda folder: (folder / RECORD).write_bytes(b"{"), "prepared.json: "),
        (lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe"), "prepared.json: "),
        (lambda folder: (folder / RECORD).write_bytes(b" " * 200_000), "prepared.json: 200000 bytes; a record has at"),
        (edit(lambda record: record.update(more=1)), "prepared.json: Object contains unknown field `more`"),
        (edit(lambda record: record["files"].pop(GRAPH)), "prepared.json: names other files than graph.onnx, weights"),
        (edit(lambda record: record["files"].update({"../x": record["files"][GRAPH]})), "prepared.json: names other"),
        (edit(lambda record: record["identity"].update(cpu="another")), "prepared.json: made for another graph, CPU"),
        (edit(lambda record: record["identity"].update(onnxruntime="1.0")), "prepared.json: made for another graph, "),
        (lambda folder: link(folder, GRAPH), "graph.onnx: a symbolic link"),
        (lambda folder: link(folder, SAVED_WEIGHTS), "weights.bin: a symbolic link"),
        (lambda folder: (folder / GRAPH).chmod(0o622), "graph.onnx: others may write to it"),
        (lambda folder: (folder / SAVED_WEIGHTS).chmod(0o660), "weights.bin: others may write to it"),
        (lambda folder: folder.chmod(0o777), ": others may write to it"),
        (lambda folder: folder.parent.chmod(0o770), "prepared: others may write to it"),
    ],
)
def test_what_may_not_be_used_is_told_and_ignored(
    tiny: Path,
    cache: Path,
    damage: Callable[[Path], object],
    message: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = prepare(tiny, cache)
    assert loads_prepared(tiny, monkeypatch)
    damage(folder)
    caplog.clear()
    assert not loads_prepared(tiny, monkeypatch)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert message in warning
    assert str(cache) in warning
    assert warning.endswith("; it is not used: run embedpack prepare again")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system knows no owners")
def test_cache_of_another_user_is_not_used(
    tiny: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tiny, cache)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert not loads_prepared(tiny, monkeypatch)
    assert f"{cache}: belongs to another user" in caplog.text
    with pytest.raises(
        PackError, match=r"belongs to another user; choose a folder of your own .* --cache of embedpack prepare$"
    ):
        prepare(tiny, cache)


def test_graph_that_onnxruntime_refuses_is_ignored(
    tiny: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(tiny, cache)
    (folder / GRAPH).write_bytes(b"no graph")
    edit(lambda record: record["files"].update({GRAPH: msgspec.to_builtins(describe_file(folder / GRAPH))}))(folder)
    caplog.clear()
    assert not loads_prepared(tiny, monkeypatch)
    assert "graph.onnx: onnxruntime " in caplog.text


def test_another_graph_cpu_or_release_has_another_folder(tiny: Path, cache: Path) -> None:
    prepare(tiny, cache)
    identity = graph_of(tiny, "fp32").identity
    assert find_prepared(cache, identity) is not None
    for change in (
        {"cpu": "x"},
        {"onnxruntime": "0"},
        {"graph": "0" * 64},
        {"weights": {"w.bin": "0" * 64}},
    ):
        other = msgspec.structs.replace(identity, **change)
        assert other.key != identity.key
        assert find_prepared(cache, other) is None


def test_changed_weights_are_not_prepared(pack: Path, cache: Path) -> None:
    flip(pack / "weights" / "fp32.bin")
    with pytest.raises(PackError, match=r"fp32\.bin: expected sha256 .*; copy the pack again$"):
        prepare(pack, cache)
    assert list(cache.iterdir()) == []


def test_nothing_is_kept_of_a_graph_that_computes_otherwise(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GraphSession.run
    calls = 0

    def run(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return [found + np.float32(1e-7 * calls) for found in original(*arguments, **options)]

    monkeypatch.setattr(GraphSession, "run", run)
    with pytest.raises(PackError, match=r"its prepared form gives other vectors; it is not kept"):
        prepare(tiny, cache)
    assert list(cache.iterdir()) == []


def test_nothing_is_kept_of_an_interrupted_run(tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "_publish", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(tiny, cache)
    assert list(cache.iterdir()) == []


def test_what_a_killed_run_left_is_removed(tiny: Path, cache: Path) -> None:
    """With any time of the clock: only the folder of a running process stays."""
    (cache / ".key.0123456789abcdef.embedpack").mkdir(parents=True)
    with temporary_folder(cache / "key") as live:
        os.utime(live, (0, 0))
        folder = prepare(tiny, cache)
        assert sorted(path.name for path in cache.iterdir()) == sorted([live.name, folder.name])


def test_intact_graph_of_another_process_is_kept(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder appears after the check of the cache."""
    folder = prepare(tiny, cache)
    state = (folder / GRAPH).stat()
    monkeypatch.setattr(prepare_module, "_find_intact", lambda *_: None)
    with caplog.at_level("INFO"):
        assert prepare(tiny, cache) == folder
    assert f"{folder}: another process has prepared it meanwhile" in caplog.messages
    assert (folder / GRAPH).stat().st_ino == state.st_ino
    assert [path.name for path in cache.iterdir()] == [folder.name]


@pytest.mark.parametrize("kind", ["file", "link", "folder", "empty"])
def test_anything_else_at_the_place_of_a_graph_makes_way(tiny: Path, cache: Path, kind: str) -> None:
    place = cache / graph_of(tiny, "fp32").identity.key
    cache.mkdir(parents=True, mode=0o700)
    if kind == "file":
        place.write_text("?")
    elif kind == "link":
        place.symlink_to(tiny)
    else:
        place.mkdir(mode=0o700)
        if kind == "folder":
            (place / "other").write_text("?")
    assert prepare(tiny, cache) == place
    assert sorted(path.name for path in place.iterdir()) == sorted([GRAPH, RECORD, SAVED_WEIGHTS])
    assert (tiny / "pack.json").exists()


def test_three_processes_at_the_same_time(tiny: Path, tmp_path: Path) -> None:
    """All of them succeed, and one graph is left."""
    command = [sys.executable, "-m", "embedpack", "prepare", str(tiny), "--variant", "default-fp32", "--threads", "1"]
    running = [
        subprocess.Popen([*command, "--cache", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * 3, errors
    (folder,) = (tmp_path / "prepared").iterdir()
    assert read_prepared(folder, graph_of(tiny, "fp32").identity).record.files


def test_too_little_disk_is_told_before_anything_is_written(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(CapacityError, match=r"default-fp32\.onnx needs about 0 MB there, 0 MB are free; free some"):
        prepare(tiny, cache)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("weights", SAVED)
def test_the_disk_that_was_said_suffices(tiny: Path, cache: Path, weights: str) -> None:
    folder = prepare(tiny, cache, weights)
    # Pages of 4096 bytes count for a model this small, and the graph itself.
    margin = 60_000
    assert (folder / SAVED_WEIGHTS).stat().st_size <= disk_bytes(graph_of(tiny, weights).weight_sizes) + margin


def test_files_are_private_whatever_the_mask(tiny: Path, cache: Path) -> None:
    before = os.umask(0)
    try:
        folder = prepare(tiny, cache)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (cache, folder)] == [0o700] * 2
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDPACK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "prepared"
    monkeypatch.setenv("EMBEDPACK_CACHE", "")
    assert cache_folder() is None
    monkeypatch.delenv("EMBEDPACK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "embedpack" / "prepared"
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for relative in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert cache_folder() == tmp_path / "home" / ".cache" / "embedpack" / "prepared"


def test_command_says_what_it_wrote(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measures real batches, too."""
    command = ["prepare", str(tiny), "--variant", "default-int8", "--threads", "1", "--cache", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/prepared: needs up to 0.1 MB for default-int8\n")
    assert "default-int8: token budget " in said
    assert "written in " in said
    assert main([*command, "--json"]) == 0
    (done,) = json.loads(capsys.readouterr().out)
    assert done["variant"] == "default-int8"
    assert [graph["written"] for graph in done["graphs"]] == [False]
    assert done["token_budget"] in (64, 128, 256, 512, 1024)
    assert set(done["tokens_per_second"]) >= {"64", "256"}


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--variant", "default-int9"], 2, "embedpack: unknown variant 'default-int9'"),
        (["--threads", "0"], 2, "argument --threads: '0' is not a whole number from 1 to 1024"),
        (["--threads", "1025"], 2, "argument --threads: '1025' is not a whole number from 1 to 1024"),
        ([], 1, "embedpack: there is no cache ($EMBEDPACK_CACHE is empty, or the user has no home); pass --cache DIR"),
    ],
)
def test_command_refuses(
    tiny: Path, options: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["prepare", str(tiny), *options])
    except SystemExit as stopped:
        found = int(stopped.code or 0)
    assert found == status
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "best"),
    [({64: 2.0, 128: 1.0, 256: 1.5}, 128), ({64: 1.02, 128: 1.0}, 64), ({64: 1.04, 128: 1.0}, 128), ({64: 1.0}, 64)],
)
def test_best_budget_is_the_smallest_of_the_fast_ones(seconds: dict[int, float], best: int) -> None:
    assert best_budget(seconds) == best


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_one_core_gets_one_thread(tiny: Path) -> None:
    """Counted by the system, in a process of its own: Python's thread and none of onnxruntime's."""
    code = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from embedpack import Embedder
def threads():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("Threads:")))
import onnxruntime, numpy
before = threads()
Embedder(sys.argv[1]).encode(["a cat"] * 64)
print(threads() - before)
"""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", code, str(tiny)]
    found = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
    assert int(found) == 0


def test_verify_checks_the_prepared_graphs_too(tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepare(tiny, cache, "int8")
    assert main(["verify", str(tiny), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prepared"] == 1
    flip(folder / SAVED_WEIGHTS)
    assert main(["verify", str(tiny)]) == 1
    message = f"embedpack: {folder / SAVED_WEIGHTS}: changed since it was prepared; the prepacked graph is damaged: run"
    assert message in capsys.readouterr().err


def test_prepared_graph_that_goes_away_below_an_open_pack(tiny: Path, cache: Path) -> None:
    folder = prepare(tiny, cache)
    model = Embedder(tiny, weights="fp32", threads=2)
    shutil.rmtree(folder)
    texts = ["read every label " * count for count in range(1, 100)]
    expected = Embedder(tiny, weights="fp32", threads=1, prepared=False).encode(texts).codes
    assert np.allclose(model.encode(texts).codes, expected, atol=1e-6)
