"""python -m benchmarks families."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.quality.families import (
    RealModel,
    add_arguments,
    document_note,
    document_rows,
    missed_goals,
    run,
    table,
)
from embedpack.errors import OptionError
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.tiny_checkpoint import make_checkpoint


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    named = parser.parse_args(arguments)
    named.threads, named.seed = 1, 3
    return named


def test_a_model_is_exported_and_compared_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RealModel(prompts={"query": "query: ", "passage": "passage: "}, sets=("words-en",), limit=5)
    monkeypatch.setattr("benchmarks.quality.families.MODELS", {"toy": model})
    write_retrieval(tmp_path / "data" / "words-en", documents=14)
    checkpoint = make_checkpoint(tmp_path / "toy")
    results = json.loads(json.dumps(run(options(f"toy={checkpoint}", "--data", str(tmp_path / "data")))))
    (found,) = results["models"]
    assert (found["model"], found["family"], found["prompts"]["query"]) == ("toy", "bert", "query: ")
    assert [(each["set"], each["queries"]) for each in found["sets"]] == [("words-en", 5)]
    fp32, int8 = found["variants"]
    assert (fp32["weights"], fp32["difference"], fp32["top_10_overlap"]) == ("fp32", 0, 1)
    assert fp32["cosine_min"] >= 1 - 1e-6
    assert int8["weights"] == "int8"
    assert int8["cosine_p1"] <= int8["cosine_mean"] < 1
    assert "words-en" in table(results)
    header, first, _ = document_rows([{"results": results}])
    assert dict(zip(header, first, strict=True))["missed"] == "none"
    assert "toy: 5 queries each of words-en" in document_note([{"results": results}])


def test_goals_that_are_missed() -> None:
    reached = {"cosine_mean": 0.9995, "cosine_p1": 0.999, "top_10_overlap": 0.97, "difference": -0.1}
    assert missed_goals(reached) == []
    assert missed_goals({**reached, "cosine_mean": 0.9992, "difference": -0.35}) == [
        "mean cosine by 0.0003",
        "nDCG@10 by 0.25",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2: expected NAME=DIR, the folder of the checkpoint"),
        ("toy=x", "unknown model 'toy'; known: all-MiniLM-L6-v2, "),
    ],
)
def test_other_arguments(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(OptionError, match=rf"\A{message}"):
        run(options(value, "--data", str(tmp_path)))
