"""The benchmark of speed: inputs, turns, ratios, peers and the page, on tiny models in this environment."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModel

from benchmarks.checkpoints import make_qwen2
from benchmarks.host import prepared
from benchmarks.peers import environments, setup
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import ENVIRONMENTS
from benchmarks.peers.job import PeerInputs, parts_of
from benchmarks.peers.pooled import padded, pooled
from benchmarks.speed import page, peak, speed
from benchmarks.speed.inputs import MIXED_TEXTS, MIXED_TOKENS, inputs_of_lengths, mixed_lengths
from benchmarks.speed.peer_forms import Form, best_forms, best_rows, form_rows, forms_of
from benchmarks.speed.rows import FIXED, IN_PARTS, OURS, Rows
from benchmarks.speed.runs import Run, cosines, figures, ratios, run_interleaved
from benchmarks.speed.workloads import Workload, shape, write_workloads
from embedpack.errors import EmbedpackError, InputError
from embedpack.pack.folder import Pack, read_pack
from embedpack_export.evaluation.provenance import provenance
from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint

WORKLOAD = Workload("2x4", "unused", 8, (2, 4))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("speed") / "bert")


@pytest.fixture(scope="module")
def pack(checkpoint: Path) -> Pack:
    folder = checkpoint.parent / "pack"
    export(quick(checkpoint, folder, allow_loss=100))
    return read_pack(folder)


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    return parser.parse_args([*arguments], argparse.Namespace(threads=1, seed=3))


def a_run(who: str, tmp_path: Path, answers: list[Any], *, is_peer: bool = False) -> Run:
    """Model whose answers are those of a list, one a call."""

    def measure() -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Run(who, is_peer, WORKLOAD, 1, "", str(tmp_path / f"{who}.npy"), measure)


def measurement(wall: float, cpu: float = 1.0) -> dict[str, Any]:
    return {"graph": "g", "wall_s": wall, "cpu_s": cpu, "memory": {"peak": 5, "anonymous": 3}}


def test_texts_have_exactly_the_wanted_tokens_and_their_ids(pack: Pack) -> None:
    inputs = inputs_of_lengths(pack, [3, 9, 30], seed=1)
    assert [len(row) for row in inputs.ids] == [3, 9, 30]
    assert [len(text.split()) for text in inputs.texts] == [1, 7, 28]
    assert inputs == inputs_of_lengths(pack, [3, 9, 30], seed=1)
    assert inputs != inputs_of_lengths(pack, [3, 9, 30], seed=2)


def test_mixed_lengths_are_log_uniform() -> None:
    lengths = mixed_lengths(5)
    assert len(lengths) == MIXED_TEXTS
    assert (min(lengths), max(lengths)) == pytest.approx(MIXED_TOKENS, abs=2)
    # The median of a log-uniform draw is the geometric mean of its ends.
    assert np.median(lengths) == pytest.approx((MIXED_TOKENS[0] * MIXED_TOKENS[1]) ** 0.5, rel=0.2)


def test_workloads_longer_than_the_model_reads_are_refused(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1x4000: this model takes at most"):
        write_workloads(pack, tmp_path, [(1, 4000)], mixed=False, seed=1)


@pytest.mark.parametrize("text", ["32", "x4", "0x4", "4x-1", "2x4x8"])
def test_shapes_of_the_command_line(text: str) -> None:
    assert shape("32x128") == (32, 128)
    with pytest.raises(argparse.ArgumentTypeError, match="is no shape"):
        shape(text)


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [[1.0, 2.0], [3.0, 4.0]]), ("cls", [[1, 1], [3, 4]]), ("last", [[1, 3], [3, 4]])]
)
def test_pooling_leaves_padding_out(pooling: str, expected: list[list[float]]) -> None:
    ids, mask = padded([[7, 8], [9]], 5)
    assert ids.tolist() == [[7, 8], [9, 5]]
    states = np.array([[[1, 1], [1, 3]], [[3, 4], [100, 100]]], np.float32)
    wanted = np.array(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled(states, mask, pooling), wanted, rtol=1e-6)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling 'max'"):
        pooled(np.ones((1, 1, 1), np.float32), np.ones((1, 1), np.int64), "max")


def test_runs_are_interleaved_and_a_failing_peer_is_reported(tmp_path: Path) -> None:
    order: list[str] = []

    def named(name: str, fails: bool = False) -> Run:
        def measure() -> dict[str, Any]:
            order.append(name)
            if fails:
                raise EmbedpackError("no such instruction")
            return measurement(1)

        return Run(name, name.startswith("peer"), WORKLOAD, 1, "", "", measure)

    measured, failed = run_interleaved([named("a"), named("peer b", fails=True), named("peer c")], 2)
    assert order == ["a", "peer b", "peer c", "a", "peer c"]
    assert [run.who for run in measured] == ["a", "peer c"]
    assert failed == {"peer b, 2x4": "no such instruction"}


def test_a_failure_of_ours_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(EmbedpackError, match="broken"):
        run_interleaved([a_run("a", tmp_path, [EmbedpackError("broken")])], 1)


def test_ratios_are_taken_within_each_repetition() -> None:
    one, other = (
        [measurement(2.0), measurement(9.0), measurement(4.0)],
        [measurement(1.0), measurement(3.0), measurement(1.0)],
    )
    assert ratios(one, other, "wall_s") == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert ratios(one, None, "wall_s") is None


def test_figures_count_real_tokens(tmp_path: Path) -> None:
    row = figures(a_run("a", tmp_path, []), [measurement(0.5), measurement(2.0), measurement(1.0)])
    assert row["tokens_per_s"] == {"median": 8.0, "min": 4.0, "max": 16.0}
    assert row["anonymous_bytes"]["median"] == 3


def test_cosines_see_a_wrong_vector(tmp_path: Path) -> None:
    run = a_run("a", tmp_path, [])
    np.save(run.vectors, np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.save(tmp_path / "reference.npy", np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert cosines(run, str(tmp_path / "reference.npy")) == {"mean": 0.853553, "min": 0.707107}


def test_rows_name_ratios_and_the_share_of_the_peak(tmp_path: Path) -> None:
    full, coded = a_run("v-fp32", tmp_path, []), a_run("v-int8", tmp_path, [])
    measured = {full: [measurement(8.0, 4.0)], coded: [measurement(2.0, 2.0)]}
    top = {"fp32": {"instructions": "i", "gops": 1e-6}, "int8": {"instructions": "i", "gops": 4e-6}}
    rows = Rows(measured, {"fp32": "v-fp32", "int8": "v-int8"}, None, 1000, top).all()
    assert [row["speedup_over_fp32"]["median"] for row in rows] == [1.0, 4.0]
    assert [row["cpu_speedup_over_fp32"]["median"] for row in rows] == [1.0, 2.0]
    # 1000 operations a token, 8 tokens, 1000 or 4000 operations a second, 4 or 2 seconds.
    assert [row["share_of_peak"]["median"] for row in rows] == [2.0, 1.0]
    unknown = Rows(measured, {"fp32": "v-fp32", "int8": "v-int8"}, None, 1000, {"not_measured": "why"}).all()
    assert not any("share_of_peak" in row for row in unknown)


def test_a_peer_is_compared_with_the_batches_of_ours(tmp_path: Path) -> None:
    whole, peer = a_run("v-int8", tmp_path, []), a_run("p", tmp_path, [], is_peer=True)
    part = dataclasses.replace(whole, batching=IN_PARTS)
    measured = {whole: [measurement(4.0)], part: [measurement(2.0)], peer: [measurement(3.0)]}
    rows = Rows(measured, {"int8": "v-int8"}, None, None, {})
    same = [rows.same_inputs(run, "int8") for run in (whole, part, peer)]
    assert same == [[measurement(4.0)], [measurement(2.0)], [measurement(2.0)]]


def test_a_large_shape_runs_as_one_batch_and_in_parts(pack: Pack) -> None:
    arguments = ["--shape", "20x16", "--without-mixed", "--repetitions", "1", "--seconds", "0"]
    results = speed.run(options(str(pack.folder), *arguments))
    assert {(row["variant"], row["in_parts"]) for row in results["shapes"]} == {
        (variant, in_parts) for variant in ("default-fp32", "default-int8") for in_parts in (False, True)
    }
    assert "20 x 16, in parts" in speed.table(json.loads(json.dumps(results)))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_peak_is_measured_or_says_why_not() -> None:
    measured = peak.measured_peak()
    if "not_measured" in measured:
        assert "cannot compile peak.c" in measured["not_measured"]
        return
    # No core of any year does less, or a thousand times more.
    assert all(1 < item["gops"] < 20_000 for item in measured.values())
    # Twice as many at least by the instructions; the best of some runs, for machines that are busy.
    for _ in range(4):
        measured = peak.best(measured, peak.measured_peak())
    assert measured["int8"]["gops"] > measured["fp32"]["gops"]


def test_copies_of_the_peak_are_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compiler that writes a program which always prints the same."""
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\nprintf \'#!/bin/sh\\necho fp32 fma 2.25\\necho int8 dot 9.5\' > "$4"\nchmod +x "$4"\n'
    )
    compiler.chmod(0o700)
    monkeypatch.setattr("benchmarks.speed.peak.shutil.which", lambda name: str(compiler))
    for copies in (1, 3):
        assert peak.measured_peak(copies) == {
            "fp32": {"instructions": "fma", "gops": 2.25 * copies},
            "int8": {"instructions": "dot", "gops": 9.5 * copies},
        }


def test_the_peak_of_several_cores_at_once_is_reported() -> None:
    one, two = ({"int8": {"gops": gops}} for gops in (200.0, 300.0))
    assert prepared.concurrent_peak({"1": [one, one], "2": [two, two]}) == [
        "peak of 2 cores at once in int8: 1.50 [1.50, 1.50] times that of one"
    ]
    assert prepared.concurrent_peak({"1": [{"not_measured": "why"}]}) == [
        "peak of several cores at once: not measured, why"
    ]


def test_without_a_compiler_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.peak.shutil.which", lambda name: None)
    assert peak.measured_peak() == {"not_measured": "there is no C compiler (cc)"}


def test_the_higher_of_two_peaks_counts() -> None:
    one, other = {"fp32": {"gops": 2.0}, "int8": {"gops": 3.0}}, {"fp32": {"gops": 1.0}, "int8": {"gops": 4.0}}
    assert peak.best(one, other) == {"fp32": {"gops": 2.0}, "int8": {"gops": 4.0}}


def test_every_peer_has_an_environment_of_exact_versions_and_a_file() -> None:
    for peer in PEERS:
        used = [(peer.module, peer.environment), *((step.module, step.environment) for step in peer.steps)]
        for module, environment in used:
            assert (Path(setup.__file__).parent / f"{module}.py").is_file()
            assert all("==" in requirement for requirement in ENVIRONMENTS[environment])
    assert len({peer.name for peer in PEERS}) == len(PEERS)


def test_parts_of_a_batch_have_at_most_the_budget() -> None:
    inputs = PeerInputs(texts=list("abcde"), ids=[[number] * 4 for number in range(5)])
    assert parts_of(inputs, None) == [inputs]
    assert [part.texts for part in parts_of(inputs, 9)] == [["a", "b"], ["c", "d"], ["e"]]
    # A text is never cut.
    assert [len(part.ids[0]) for part in parts_of(inputs, 3)] == [4] * 5


def test_the_best_form_is_the_fastest_of_those_that_compute_the_model() -> None:
    def form(name: str, seconds: Sequence[float], cosine: float) -> Form:
        return Form("p", name, "why", dict(zip([(1, 8), (4, 8)], seconds, strict=True)), {(1, 8): 2.0}, cosine, 0.5)

    forms = [form("slow", [2, 2], 0.999), form("fast", [0.5, 4], 0.98), form("wrong", [0.1, 0.1], 0.9)]
    assert best_forms(forms)["p"].form == "fast"
    assert best_forms(forms[2:])["p"].form == "wrong"
    assert [row[:3] for row in form_rows(forms)[1:]] == [
        ["p", "slow", "1.41"],
        ["p", "fast", "1.00"],
        ["p", "wrong", "0.07"],
    ]
    assert form_rows(forms[:1])[1:] == []
    assert best_rows(forms)[1] == ["p: fast", "2.00x", "", "0.5000"]


def test_a_form_that_failed_at_a_shape_is_left_out() -> None:
    def row(peer: str, tokens: int) -> dict[str, Any]:
        cosine = {"mean": 0.99, "min": 0.9}
        return {
            "peer": peer, "rows": 1, "tokens": tokens, "cpu_s": {"median": 3.0},
            "int8_cpu_speedup": {"median": 1.5}, "cosine": cosine,
        }  # fmt: skip

    facts = {name: {"program": "p", "form": name} for name in ("whole", "part")}
    results = {"peers": {"peers": facts, "mixed": [], "shapes": [row("whole", 4), row("whole", 8), row("part", 8)]}}
    (only,) = forms_of(results)
    assert (only.form, only.speedups) == ("whole", {(1, 4): 1.5, (1, 8): 1.5})
    assert only.mean_s == pytest.approx(3)


def test_an_environment_that_cannot_be_installed_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.peers.environments.sys.executable", shutil.which("false"))
    with pytest.raises(EmbedpackError, match="the environment torch cannot be installed: no message"):
        environments.python_of(tmp_path, "torch")


def test_an_environment_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / environments.STAMP).write_text("\n".join(ENVIRONMENTS["torch"]))
    assert environments.python_of(tmp_path, "torch") == tmp_path / "torch" / "bin" / "python"


def test_options_that_need_each_other(pack: Pack, checkpoint: Path) -> None:
    with pytest.raises(InputError, match="--peers and --checkpoint go together"):
        speed.run(options(str(pack.folder), "--peers"))
    with pytest.raises(InputError, match="--peer and --adapter need --peers, which is missing"):
        speed.run(options(str(pack.folder), "--peer", "torch fp32"))
    with pytest.raises(InputError, match="unknown --task 'code'"):
        speed.run(options(str(pack.folder), "--task", "code"))


def test_peers_beside_ours(pack: Pack, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This environment has torch and not CTranslate2: one peer works, one is missing.
    monkeypatch.setattr(setup, "python_of", lambda root, name: Path(sys.executable))
    arguments = ["--peers", "--checkpoint", str(checkpoint), "--environments", str(tmp_path)]
    arguments += ["--peer", "torch fp32", "--peer", "CTranslate2 int8", "--shape", "2x8", "--without-mixed"]
    results = speed.run(options(str(pack.folder), *arguments, "--repetitions", "1", "--seconds", "0"))
    # Named by its program, it is missing in all of its forms.
    assert list(results["peers"]["missing"]) == ["CTranslate2 int8, one call", "CTranslate2 int8, parts of 512 tokens"]
    assert "ctranslate2" in results["peers"]["missing"]["CTranslate2 int8, one call"]
    (row,) = results["peers"]["shapes"]
    assert (row["peer"], row["rows"], row["tokens"]) == ("torch fp32", 2, 8)
    assert row["cosine"]["min"] > 0.999999
    assert {item["variant"] for item in results["shapes"]} == {"default-fp32", "default-int8"}
    assert all(0.99 < item["cosine"]["min"] <= 1.000001 for item in results["shapes"])
    assert row["int8_speedup"]["median"] > 0
    report = {"benchmark": "speed", "command": "c", "provenance": provenance(1, 3), "results": results}
    shown = speed.table(json.loads(json.dumps(report["results"])))
    assert "torch fp32" in shown
    assert "missing: CTranslate2 int8, one call: " in shown
    (tmp_path / "results.json").write_text(json.dumps(report))
    assert page.main([str(tmp_path / "results.json"), "-o", str(tmp_path / "page.html")]) == 0
    written = (tmp_path / "page.html").read_text()
    assert written.count("torch fp32") >= 2
    assert "Missing" in written


def test_a_page_of_another_benchmark_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "codes.json").write_text('{"benchmark": "codes"}')
    assert page.main([str(tmp_path / "codes.json"), "-o", str(tmp_path / "page.html")]) == 1
    assert "results of the benchmark 'codes'" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_peers_of_another_checkpoint_are_refused(pack: Pack, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", seed=8)
    arguments = ["--peers", "--checkpoint", str(other), "--environments", str(tmp_path), "--shape", "1x8"]
    with pytest.raises(EmbedpackError, match="the pack was not made of"):
        speed.run(options(str(pack.folder), *arguments, "--without-mixed"))


def test_texts_of_mixed_lengths_in_both_ways(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.workloads.mixed_lengths", lambda seed: [3, 20, 7, 12] * 20)
    results = speed.run(options(str(pack.folder), "--shape", "1x8", "--repetitions", "1", "--seconds", "0"))
    rows = {(row["variant"], row["batching"]): row for row in results["mixed"]}
    assert len(rows) == 4
    ours = rows["default-int8", OURS]
    assert ours["tokens"] == 840
    # Sorted by length, next to nothing is padding; in order, every batch is as long as its longest text.
    assert 840 <= ours["tokens_computed"] < 1000
    assert rows["default-int8", FIXED]["tokens_computed"] == 1600
    assert results["peers"] is None


def test_the_plain_decoder_is_one_that_transformers_knows(tmp_path: Path) -> None:
    folder = make_qwen2.make_qwen2(tmp_path / "decoder", "tiny", layers=2)
    model, loaded = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "Qwen2Model"
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert len(model.layers) == 2
