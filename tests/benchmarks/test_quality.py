"""python -m benchmarks codes, and the retention that codes and multi report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.codes import add_arguments, run, table
from benchmarks.quality.retention import retention
from embedpack.errors import InputError
from embedpack_export.evaluation.results import QueryScores, SetResult, Setting
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.tiny_pack import TINY_PACK


def options(data: Path, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    named = parser.parse_args([str(TINY_PACK), "--data", str(data), "--set", "words-en", *arguments])
    named.threads, named.seed = 1, 3
    return named


def test_codes_are_compared_with_float32_and_cached_vectors_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.quality.codes.COUNTED", (0.0, 100.0))
    write_retrieval(tmp_path / "words-en", documents=14)
    cached = options(tmp_path, "--expand", "64", "--cache", str(tmp_path / "cache"))
    results = json.loads(json.dumps(run(cached)))
    assert json.loads(json.dumps(run(cached))) == results
    assert len(list((tmp_path / "cache").iterdir())) == 2
    (model,) = results["models"]
    (described,) = model["sets"]
    assert (described["documents"], described["queries"], described["in_mean"]) == (14, 12, True)
    rows = {(row["dimensions"], row["precision"]): row for row in model["rows"]}
    assert rows[32, "float32"]["retention"] == rows[32, "float32"]["retention_of_full"] == 1
    assert rows[16, "float32"]["retention"] == 1
    assert (rows[32, "float32"]["bytes"], rows[32, "binary"]["bytes"], rows[16, "4bit"]["bytes"]) == (128, 4, 8)
    assert (32, "binary, queries too") in rows
    assert [row["dimensions"] for row in model["expanded"]] == [64] * 4
    assert "64 ternary" in table(results)


def test_codes_need_a_set_on_which_there_is_something_to_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_retrieval(tmp_path / "words-en")
    monkeypatch.setattr("benchmarks.quality.codes.COUNTED", (101.0, 102.0))
    with pytest.raises(InputError, match=r"scores between 101\.0 and 102\.0 points on none of the sets"):
        run(options(tmp_path))


def result(name: str, scores: list[float], reference: list[float]) -> SetResult:
    return SetResult(
        set=name,
        queries=len(scores),
        reference=float(np.mean(reference)),
        score=float(np.mean(scores)),
        difference=float(np.mean(scores) - np.mean(reference)),
        recall_at_100=None,
        top_10_overlap=None,
        rank_biased_overlap=None,
        cosine=None,
        per_query=QueryScores(
            setting=Setting("fp32", "single", 32, "binary"),
            measure="nDCG@10",
            scores=np.array(scores),
            reference=np.array(reference),
            languages=["en"] * len(scores),
            full_reference=float(np.mean(reference)),
            bytes=4,
        ),
    )


def test_every_set_has_the_same_weight_in_a_retention() -> None:
    results = [result("large", [40.0] * 30, [80.0] * 30), result("small", [60.0, 60.0], [80.0, 80.0])]
    assert retention(results, seed=1) == {
        "retention": 0.625,
        "retention_95": [0.625, 0.625],
        "worst_set": "large",
        "worst_retention": 0.5,
        "by_set": {"large": 0.5, "small": 0.75},
    }
