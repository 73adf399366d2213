"""python -m benchmarks encode: a run on a toy, the time outside the graph, too few texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.speed import encode
from embedpack.errors import InputError
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.tiny_pack import TINY_PACK


def options(folder: Path, texts: int) -> argparse.Namespace:
    write_retrieval(folder / "toy")
    parser = argparse.ArgumentParser()
    encode.add_arguments(parser)
    counts = ["--texts", str(texts), "--calls", "3", "--repetitions", "1"]
    named = parser.parse_args([str(TINY_PACK), "--data", str(folder), *counts])
    named.seed, named.threads = 1, 2
    return named


def test_a_run_on_a_toy(tmp_path: Path) -> None:
    results = json.loads(json.dumps(encode.run(options(tmp_path, 10))))
    one = results["one"]
    assert 0 < one["outside_s"]["min"] < one["cpu_s"]["max"]
    assert 0 < one["outside_share"] < 1
    assert [row["threads"] for row in results["many"]] == [1, 2]
    assert len(encode.document_rows(results)) == 3
    assert "2 threads: " in encode.table(results)


def test_too_few_texts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="12 queries, 20 documents; pass --texts 24"):
        encode.run(options(tmp_path, 26))
