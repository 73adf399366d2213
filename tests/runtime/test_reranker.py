"""Reranker: scores of pairs and of multi-vectors, their order, refusals of inputs and packs."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Embedder, InputError, PackError, Ranked, Reranker, maxsim
from embedpack.cli.main import main
from embedpack.engine.pair_scores import sigmoid
from embedpack.reranker import ranked
from tests.helpers.broken_packs import LISTS, MAXSIM, Edit, changes, put, reranker, with_multi
from tests.helpers.tiny_pack import PACK_2_0, TINY_RERANKER

QUERY = "how do i reset a router ?"
DOCUMENTS = [
    "reset the router",
    "the cat sleeps on a warm roof",
    "A",
    "index shelf read every label twice " * 3,
    "a window , a door",
    "[SEP] reset [CLS] the [PAD] router",
]


@pytest.fixture(scope="module")
def models() -> dict[str, Reranker]:
    """The tiny reranker with each of its weights."""
    return {weights: Reranker(TINY_RERANKER, weights=weights, threads=1) for weights in ("fp32", "int8")}


@pytest.fixture
def scorer_pack(tmp_path: Path) -> Path:
    """A copy of the tiny reranker, to be broken."""
    folder = tmp_path / "pack"
    shutil.copytree(TINY_RERANKER, folder)
    return folder


def change(pack: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((pack / "pack.json").read_text())
    edit(manifest)
    (pack / "pack.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("weights", ["fp32", "int8"])
@given(documents=st.lists(st.sampled_from(DOCUMENTS), min_size=1, max_size=7))
def test_a_score_depends_on_its_pair_alone(models: dict[str, Reranker], weights: str, documents: list[str]) -> None:
    model = models[weights]
    together = model.score(QUERY, documents)
    alone = np.concatenate([model.score(QUERY, [document]) for document in documents])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_rankings_are_ordered_by_score_then_index(models: dict[str, Reranker]) -> None:
    documents = [DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[1]]
    scores = models["fp32"].score(QUERY, documents)
    found = models["fp32"].rank(QUERY, documents)
    assert [item.score for item in found] == sorted(scores.tolist(), reverse=True)
    assert [item.index for item in found if item.index != 1] == [0, 2]
    assert models["fp32"].rank(QUERY, documents, top_n=1) == found[:1]
    assert models["fp32"].rank(QUERY, documents, top_n=9) == found


def test_equal_scores_keep_the_order_of_the_documents() -> None:
    assert ranked(np.array([0.5, 1, 0.5], np.float32), 2) == [Ranked(1, 1.0), Ranked(0, 0.5)]


def test_order_of_query_and_document_matters(models: dict[str, Reranker]) -> None:
    one, other = (models["fp32"].score(*pair)[0] for pair in ((QUERY, DOCUMENTS[:1]), (DOCUMENTS[0], [QUERY])))
    assert one != other


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ("", ["a"], "the query is empty; pass a text"),
        ("a\0", ["a"], "the query has a NUL character at position 1; is it binary data?"),
        (["a"], ["a"], "the query is of type list; it must be one text, a str"),
        (Path("cat.png"), ["a"], "the query is an image; this pack scores texts only"),
        ("a", [], "nothing to score: the list of documents is empty"),
        ("a", "a cat", "documents is of type str; pass a list of texts"),
        ("a", {"a": 1}, "documents is of type dict; pass a list of texts"),
        ("a", 5, "documents is of type int; pass a list of texts"),
        ("a", ["a", " \n"], "document 1 is empty; leave it out"),
        ("a", ["a", 7], "document 1 is of type int; a document must be a str"),
        ("a", ["a", Path("cat.png")], "document 1 is an image; this pack scores texts only"),
        ("a", ["a", b"cat"], "document 1 is an image; this pack scores texts only"),
    ],
)
def test_inputs_that_cannot_be_scored(models: dict[str, Reranker], query: Any, documents: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        models["fp32"].score(query, documents)
    assert str(caught.value) == message


@pytest.mark.parametrize("top_n", [0, -1, 2.0, True, "3"])
def test_top_n_is_a_positive_number(models: dict[str, Reranker], top_n: Any) -> None:
    with pytest.raises(InputError, match=r"^top_n is .*; it must be a whole number of at least 1$"):
        models["fp32"].rank(QUERY, DOCUMENTS, top_n=top_n)


def test_options_that_the_pack_does_not_have(models: dict[str, Reranker]) -> None:
    with pytest.raises(InputError, match=r"^instruction is of no use: this model takes none; leave it out$"):
        models["fp32"].score(QUERY, DOCUMENTS, instruction="find the manual")
    with pytest.raises(InputError, match=r"^unknown on_long 'cut'"):
        models["fp32"].score(QUERY, DOCUMENTS, on_long="cut")  # type: ignore[arg-type]


def test_pairs_over_the_limit_are_cut_and_counted(
    models: dict[str, Reranker], caplog: pytest.LogCaptureFixture
) -> None:
    long = "the cat sleeps " * 40
    with caplog.at_level(logging.WARNING):
        scores = models["fp32"].score(QUERY, [*DOCUMENTS[:3], long, f"{long} and the door"])
    assert caplog.messages == ["Truncated 2 of 5 texts to 32 tokens: 3, 4 (on_long='error' stops instead)"]
    # What is cut off does not count.
    assert scores[3] == scores[4]
    with pytest.raises(InputError, match=r"^document 3 and the query have more than the 32 tokens of a pair, or one "):
        models["fp32"].score(QUERY, [*DOCUMENTS[:3], long], on_long="error")


def test_many_documents(models: dict[str, Reranker]) -> None:
    documents = ["a cat", "a door", "rain"] * 3_000
    scores = models["int8"].score("cat", documents)
    assert scores.shape == (9_000,)
    np.testing.assert_allclose(scores[:3], scores[-3:], rtol=0, atol=1e-6)


def test_a_closed_reranker_and_a_copy(models: dict[str, Reranker]) -> None:
    with Reranker(TINY_RERANKER, weights="fp32", threads=1) as model:
        assert repr(model) == f"Reranker({str(TINY_RERANKER)!r}, variant='default-fp32')"
    with pytest.raises(InputError, match=r"this Reranker is closed; open the pack again$"):
        model.score(QUERY, DOCUMENTS)
    with pytest.raises(TypeError, match=r"^this Reranker cannot be pickled"):
        pickle.dumps(models["fp32"])


def test_scores_that_are_not_finite(models: dict[str, Reranker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.engine.graph_scores.GraphScorer._outputs", lambda *_: [np.float32(np.nan)])
    message = f"^{TINY_RERANKER}: the graph computed a score that is not a finite number; run: embedpack verify "
    with pytest.raises(PackError, match=message):
        models["fp32"].score(QUERY, DOCUMENTS[:1])


@given(st.floats(-200, 200, width=32))
def test_sigmoid_keeps_small_scores(logit: float) -> None:
    found = sigmoid(np.array([logit], np.float32))[0]
    assert found == pytest.approx(1 / (1 + np.exp(-np.float64(logit))), rel=1e-6, abs=1e-44)


def test_golden_scores_are_verified(scorer_pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(scorer_pack)]) == 0
    assert "difference from the golden scores: default-fp32 " in capsys.readouterr().out
    path = scorer_pack / "report" / "golden.json"
    golden = json.loads(path.read_text())
    golden["scores"]["default-int8"][3] += 0.5
    path.write_text(json.dumps(golden))
    entry = _entry(path)
    change(scorer_pack, lambda manifest: manifest["files"].update({"report/golden.json": entry}))
    assert main(["verify", str(scorer_pack)]) == 1
    assert "default-int8 computes other scores here than on the machine that exported it" in capsys.readouterr().err


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_kind_and_the_pairs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(TINY_RERANKER)]) == 0
    shown = capsys.readouterr().out
    assert "scores      pairs of up to 32 tokens, from 0 to 1\n" in shown
    assert "variant     default-int8" in shown
    assert "difference of scores" in shown


def test_packs_without_scores_are_refused(tiny: Path, pack: Path, edit: Edit) -> None:
    with pytest.raises(InputError, match="this pack has neither scores nor multi-vectors, so it cannot score"):
        Reranker(tiny)
    edit(reranker(LISTS))
    with pytest.raises(PackError, match="mark_vectors cannot be computed"):
        Reranker(pack, weights="fp32", threads=1).score("a", ["b"])


def test_maxsim_needs_multi_vectors(pack: Path, edit: Edit) -> None:
    edit(put("score", MAXSIM))
    with pytest.raises(PackError, match=r"MaxSim needs multi - at `\$.score`"):
        Reranker(pack)


def test_scores_of_multi_vectors_are_those_of_maxsim() -> None:
    with Reranker(PACK_2_0, task="retrieval", threads=1) as ranker:
        scores = ranker.score(QUERY, DOCUMENTS)
    model = Embedder(PACK_2_0, task="retrieval", threads=1)
    queries = model.encode_multi(QUERY, prompt_name="query")
    documents = model.encode_multi(DOCUMENTS, prompt_name="passage")
    np.testing.assert_allclose(scores, maxsim(queries, documents)[0], rtol=1e-6)


def test_limits_of_the_tokenizer_and_the_template(scorer_pack: Path) -> None:
    change(
        scorer_pack,
        lambda manifest: manifest["score"].update(cut="longest", parts=[{"slot": "query"}, " ", {"slot": "document"}]),
    )
    with pytest.raises(PackError, match="template of pairs: cut is 'longest', and the query does not end before ids"):
        Reranker(scorer_pack)


def test_declared_multi_vectors_of_a_score_are_used(pack: Path, edit: Edit) -> None:
    edit(changes(with_multi(), put("score", MAXSIM)))
    # The graphs of this pack have none.
    with pytest.raises(PackError):
        Reranker(pack, weights="fp32", threads=1).score("a", ["b"])
