"""Benchmark of switchable adapters: ratios of a pack with both modes, refusal of others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.checkpoints.make_v3 import make_v3
from benchmarks.host.embedder_worker import TEXT_TOKENS
from benchmarks.speed import adapters
from embedpack.errors import InputError
from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_pack import TINY_PACK


def options(pack: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    adapters.add_arguments(parser)
    named = parser.parse_args([str(pack), "--repetitions", "1"])
    named.threads = 1
    return named


def test_ratios_of_each_length(tmp_path: Path) -> None:
    checkpoint = make_v3(tmp_path / "v3")
    settings = {"tasks": ("retrieval.query",), "adapter_modes": ("merged", "switchable"), "weights": ("int8",)}
    export(quick(checkpoint, tmp_path / "pack", **settings, max_loss=100))
    results = json.loads(json.dumps(adapters.run(options(tmp_path / "pack"))))
    assert [row["tokens"] for row in results["rows"]] == list(TEXT_TOKENS)
    assert all(row["cpu_s"]["min"] > 0 for row in results["rows"])
    assert adapters.table(results).count("retrieval.query") == len(TEXT_TOKENS)


def test_a_pack_of_one_mode_is_refused() -> None:
    with pytest.raises(InputError, match="needs int8 with merged and with switchable adapters; export it with both"):
        adapters.run(options(TINY_PACK))
