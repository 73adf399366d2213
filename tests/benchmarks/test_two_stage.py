"""python -m benchmarks two-stage: a run on the tiny packs, its bytes, the order of the last stage."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.search.two_stage import BINARY, EXACT, INT8, RERANKED, Index, add_arguments, run, stages, table
from embedpack import Embedder, Reranker
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.tiny_pack import TINY_PACK, TINY_RERANKER


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_retrieval(folder / "words", queries=6)
    return folder


def test_a_run_on_a_toy(data: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([str(TINY_PACK), str(TINY_RERANKER), "--data", str(data), "--set", "words"])
    options.seed = 3
    results = json.loads(json.dumps(run(options)))
    (words,) = results["sets"]
    rows = {row["stage"]: row for row in words["stages"]}
    assert list(rows) == [BINARY, INT8, RERANKED, EXACT]
    dimensions = rows[EXACT]["bytes_a_document"] / 4
    assert rows[INT8]["bytes_a_document"] == dimensions + rows[BINARY]["bytes_a_document"]
    assert rows[RERANKED]["bytes_a_document"] > rows[INT8]["bytes_a_document"]
    assert rows[EXACT]["minus_float32"] == 0.0
    assert RERANKED in table(results)


def test_the_last_stage_orders_the_candidates_by_their_scores(data: Path) -> None:
    (words,) = read_sets(data)
    assert isinstance(words, RetrievalSet)
    model = Embedder(TINY_PACK, weights="int8", threads=1)
    reranker = Reranker(TINY_RERANKER, weights="int8", threads=1)
    index = Index.build(model, words, queries=2)
    by_name = {stage.name: stage for stage in stages(index, reranker, depth=len(index.texts))}
    query = list(index.evaluation_set.queries.values())[1]
    expected = [each.index for each in reranker.rank(query, index.texts, 10)]
    scores = reranker.score(query, index.texts)
    assert scores[by_name[RERANKED].rank(1)].tolist() == scores[expected].tolist()
