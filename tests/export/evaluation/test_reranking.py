"""bench accuracy of a reranker: candidates of a first stage, their order by scores, losses, refusals of options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Reranker
from embedpack.cli.main import main
from embedpack_export.evaluation.reranking.candidates import Candidates, find_candidates
from embedpack_export.evaluation.reranking.options import FirstStage
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.pipeline import export
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.exports import quick
from tests.helpers.tiny_pack import TINY_PACK, TINY_RERANKER
from tests.helpers.tiny_reranker import make_reranker

DEPTH = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_retrieval(folder / "words", queries=8)
    return folder


@pytest.fixture(scope="module")
def candidates(data: Path) -> Candidates:
    (words,) = read_sets(data)
    assert isinstance(words, RetrievalSet)
    (found,) = find_candidates(FirstStage(pack=TINY_PACK, depth=DEPTH), [words], 1)
    return found


def bench(data: Path, *options: str, pack: Path = TINY_RERANKER) -> int:
    return main(["bench", "accuracy", str(pack), "--data", str(data), "--threads", "1", "--no-cache", *options])


@given(scores=st.lists(st.lists(st.integers(0, 3), min_size=DEPTH, max_size=DEPTH), min_size=8, max_size=8))
def test_the_order_follows_the_scores_and_keeps_that_of_the_first_stage(
    candidates: Candidates, scores: list[list[int]]
) -> None:
    ranks = candidates.reranked(np.array(scores, np.float32))
    for found, row, reranked in zip(candidates.ranks.tolist(), scores, ranks.tolist(), strict=True):
        expected = sorted((-score, place) for place, score in enumerate(row))
        assert reranked == [found[place] for _, place in expected]


def test_candidates_are_scored_with_their_own_query(candidates: Candidates) -> None:
    model = Reranker(TINY_RERANKER, weights="fp32", threads=1)
    scores = candidates.scores(model.score)
    queries = list(candidates.evaluation_set.queries.values())
    documents = list(candidates.evaluation_set.documents.values())
    chosen = [documents[row] for row in candidates.ranks[3].tolist()]
    assert np.allclose(scores[3], model.score(queries[3], [str(text) for text in chosen]), atol=1e-6)


def test_the_fp32_variant_equals_itself_and_int8_is_compared_with_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    options = ["--first-stage", str(TINY_PACK), "--depth", str(DEPTH), "--json", str(path)]
    assert bench(data, *options) == 1  # eight queries cannot exclude a loss
    report = json.loads(path.read_text())["reranking"]
    assert (report["reference"], report["depth"]) == ("fp32 graph", DEPTH)
    (words,) = report["sets"]
    fp32, int8 = words["variants"]
    assert (fp32["variant"], fp32["kendall"], fp32["largest_difference"]) == ("default-fp32", 1.0, 0.0)
    assert (fp32["test"]["difference"], fp32["gain"]) == (0.0, words["reference"])
    assert int8["kendall"] <= 1.0
    assert int8["largest_difference"] > 0.0
    expected = words["reference"]["ndcg"] - words["first_stage"]
    assert words["reference"]["difference"] == pytest.approx(expected)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("first stage", "default-int8", "tau", "FAILED: a loss above 0.3 points"))


def test_scores_are_compared_with_those_of_torch(data: Path, tmp_path: Path) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint")
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",)))
    path = tmp_path / "report.json"
    options = ["--first-stage", str(TINY_PACK), "--reference", str(checkpoint), "--json", str(path)]
    bench(data, *options, pack=tmp_path / "pack")
    report = json.loads(path.read_text())["reranking"]
    assert report["reference"] == "torch"
    (result,) = report["sets"][0]["variants"]
    assert result["largest_difference"] <= 1e-4


@pytest.mark.parametrize(
    ("pack", "options", "message"),
    [
        (TINY_RERANKER, [], "pass --first-stage, the embedder that finds the documents"),
        (TINY_RERANKER, ["--first-stage", str(TINY_PACK), "--precision", "int8"], "--precision is of no use"),
        (TINY_PACK, ["--first-stage", str(TINY_PACK)], "--first-stage is of no use"),
        (TINY_PACK, ["--depth", "5"], "--depth is of no use"),
        (TINY_RERANKER, ["--first-stage", str(TINY_RERANKER)], "--first-stage takes an embedder"),
        (TINY_RERANKER, ["--first-stage", str(TINY_PACK), "--task", "tasks"], "tasks"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    data: Path, pack: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(data, *options, pack=pack) != 0
    assert message in capsys.readouterr().err
