"""The benchmark of GPUs, with the CPU in place of one: inputs, rows, programs that fail."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import gpu, speed
from benchmarks.speed.gpu import GpuOptions, measured, product_weights
from benchmarks.speed.on_gpu import make_pack
from embedpack import EmbedpackError
from embedpack.errors import InputError
from embedpack.pack.folder import read_pack
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pack(tmp_path_factory.mktemp("gpu"), "tiny", 1)


def here(measure: Callable[..., Any], job: Any) -> Any:
    """`in_fresh_process` without a process."""
    return measure(job)


@pytest.fixture
def options(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> GpuOptions:
    monkeypatch.setattr(gpu, "in_fresh_process", here)
    monkeypatch.setattr("benchmarks.speed.inputs.MIXED_TEXTS", 8)
    monkeypatch.setattr("benchmarks.timing.MIN_CALLS", 1)
    # A megabyte less each time: a process asks once before it loads the model, and after each workload.
    monkeypatch.setattr("benchmarks.speed.gpu_worker.free_memory", itertools.count(10**12, -(10**6)).__next__)
    return GpuOptions(made[0], "cpu", ((1, 8), (2, 12)), repetitions=2, seconds=0.0, seed=5)


def test_all_programs_are_measured_on_the_same_inputs(made: tuple[Path, Path], options: GpuOptions) -> None:
    results = measured(read_pack(made[1]), options)
    assert results["failed"] == {}
    found = [(row["program"], row["workload"]) for row in results["rows"]]
    assert sorted(found) == sorted([
        *((program, shape) for program in gpu.OF_IDS for shape in ("1x8", "2x12")),
        *((program, "mixed") for program in gpu.OF_TEXTS),
    ])  # fmt: skip
    assert all(row["cosine"]["min"] > (0.9 if "int4" in row["program"] else 0.99) for row in results["rows"])
    one = next(row for row in results["rows"] if row["workload"] == "2x12")
    operations = 2 * product_weights(read_pack(made[1]), "default-fp16")
    rate = one["tokens_per_s"]["median"] * operations / results["card"]["operations_per_s"]
    assert one["gpu_bytes"] == 2 * 10**6
    assert one["share_of_rate"]["median"] == pytest.approx(rate, rel=0.01)
    printed = speed.table(results)
    assert "TFLOP/s in a product of float16 matrices" in printed
    assert printed.count("sentence-transformers fp16") == 1


def test_a_program_that_fails_is_named(
    made: tuple[Path, Path], options: GpuOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(measure: Callable[..., Any], job: Any) -> Any:
        if getattr(job, "program", "") == "torch bf16":
            raise EmbedpackError("no such type on this card")
        return (
            [{"wall_s": 1.0, "gpu_bytes": None}] * len(job.inputs)
            if hasattr(job, "inputs")
            else {"name": "x", "operations_per_s": 1e9}
        )

    monkeypatch.setattr(gpu, "in_fresh_process", fails)
    monkeypatch.setattr(gpu, "_row", lambda program, *_: {"program": program})
    results = measured(read_pack(made[1]), options)
    assert results["failed"] == {"torch bf16": "no such type on this card"}
    assert {row["program"] for row in results["rows"]} == {*gpu.OF_IDS, *gpu.OF_TEXTS} - {"torch bf16"}


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    return parser.parse_args([*arguments], argparse.Namespace(threads=1, seed=3))


def test_options_that_go_together() -> None:
    with pytest.raises(InputError, match="--device cuda needs --checkpoint"):
        speed.run(parsed(str(TINY_PACK), "--device", "cuda"))
    with pytest.raises(InputError, match="--device cuda goes with --checkpoint, --shape"):
        speed.run(parsed(str(TINY_PACK), "--device", "cuda", "--checkpoint", "x", "--without-mixed"))
    with pytest.raises(InputError, match="has no variant with fp16 weights; export it with --weights fp16"):
        speed.run(parsed(str(TINY_PACK), "--device", "cuda", "--checkpoint", "x"))
