"""python -m benchmarks accuracy, from a checkpoint to a table and to the README's figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.quality.accuracy import add_arguments, run, table
from benchmarks.readme import retrieval_sets
from embedpack.errors import InputError
from tests.helpers.evaluation_sets import write_data
from tests.helpers.exports import QUERY, query_update, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint


def test_a_checkpoint_becomes_a_table_and_figures_for_the_readme(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapter = write_adapter(tmp_path / "adapter", query_update(), target_modules=[QUERY])
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    named = ["--set", "retrieval/words-en", "--set", "sts/pairs-de-dev"]
    options = ["--data", str(write_data(tmp_path / "data")), "--adapter", f"retrieval={adapter}", *named]
    asked = parser.parse_args([str(checkpoint), *options])
    asked.threads, asked.seed = 1, 3
    results = json.loads(json.dumps(run(asked)))
    assert results["accuracy"]["reference"] == "torch"
    assert "toy compared with its reference (torch)" in table(results)
    (entry,) = retrieval_sets(results)
    assert entry["set"] == "retrieval/words-en"
    assert list(entry["variants"]) == ["retrieval-fp32", "retrieval-int8", "retrieval-int4"]
    assert entry["variants"]["retrieval-fp32"]["difference"] == 0
    assert entry["variants"]["retrieval-fp32"]["ndcg_at_10"] == entry["reference_ndcg_at_10"]
    assert entry["variants"]["retrieval-int8"]["cosine"]["p1"] > 0.99


def test_figures_of_the_older_benchmark_have_no_table() -> None:
    with pytest.raises(InputError, match="measure again to see their table"):
        table({"tasks": {}})
