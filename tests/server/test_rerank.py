"""`/v1/rerank`: scores are those of `Reranker`, alone and among other requests."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from embedpack import Embedder, Reranker
from embedpack.errors import PackError
from embedpack.pack.score_recipes import PairScores
from embedpack.server.rank_work import MaxSimReading, ScoreReading
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import ServeSettings
from tests.helpers.asgi import Answer, call, get, post
from tests.helpers.server import Running, start_app
from tests.helpers.tiny_pack import PACK_2_0, TINY_PACK, TINY_RERANKER
from tests.server.conftest import KINDS, GatedEncoder

QUERY = "how do i reset a router ?"
DOCUMENTS = [
    "reset the router", "the cat sleeps on a warm roof", "reset the router", "A", "index shelf read every label " * 3,
    "a window , a door",
]  # fmt: skip
PAIRS = {"model": "pairs", "query": QUERY, "documents": DOCUMENTS}


def rerank(running: Running, fields: Any) -> Answer:
    return asyncio.run(call(running.app, "POST", "/v1/rerank", json.dumps(fields).encode()))


def scores(answer: Answer) -> list[float]:
    """Scores in the order of the documents."""
    assert answer.status == 200, answer.body
    results = answer.json["results"]
    return [each["relevance_score"] for each in sorted(results, key=lambda each: each["index"])]


def test_a_request_alone_has_the_ranking_of_reranker(kinds: Running) -> None:
    answer = rerank(kinds, PAIRS)
    with Reranker(TINY_RERANKER, weights="fp32", threads=1) as model:
        expected = model.rank(QUERY, DOCUMENTS)
    found = [(each["index"], each["relevance_score"]) for each in answer.json["results"]]
    assert found == [(each.index, round(each.score, 8)) for each in expected]
    assert answer.json.keys() == {"model", "object", "usage", "results"}
    assert answer.json["results"][0].keys() == {"index", "relevance_score", "document"}
    assert [each["document"]["text"] for each in answer.json["results"]] == [DOCUMENTS[index] for index, _ in found]
    assert answer.json["usage"]["total_tokens"] > len(DOCUMENTS)


@pytest.mark.parametrize("task", ["retrieval", "code"])
def test_multi_vectors_score_by_maxsim(kinds: Running, task: str) -> None:
    fields = {**PAIRS, "model": "tokens", "task": task}
    with Reranker(PACK_2_0, task=task, threads=1) as model:
        np.testing.assert_allclose(scores(rerank(kinds, fields)), model.score(QUERY, DOCUMENTS), atol=1e-5)


def test_a_call_without_a_task_has_that_of_a_search(kinds: Running) -> None:
    fields = {**PAIRS, "model": "tokens"}
    assert scores(rerank(kinds, fields)) == scores(rerank(kinds, {**fields, "task": "retrieval"}))


def test_maxsim_is_divided_by_the_query_vectors_where_the_recipe_says() -> None:
    values = [np.eye(3, dtype=np.float32)[:2], np.eye(3, dtype=np.float32), 2 * np.eye(3, dtype=np.float32)[:1]]
    assert MaxSimReading([], per_query_token=False).values(values)[0].tolist() == [2, 2]
    assert MaxSimReading([], per_query_token=True).values(values)[0].tolist() == [1, 1]


def test_the_best_come_first_and_equal_ones_by_their_index(kinds: Running) -> None:
    whole = rerank(kinds, PAIRS).json["results"]
    equal = [each["index"] for each in whole if each["document"]["text"] == "reset the router"]
    assert equal == [0, 2]
    for number in (1, 3, 100):
        short = rerank(kinds, {**PAIRS, "top_n": number, "return_documents": False}).json["results"]
        assert short == [{name: each[name] for name in ("index", "relevance_score")} for each in whole[:number]]


def test_scores_do_not_depend_on_other_requests() -> None:
    alone = Reranker(TINY_RERANKER, weights="fp32", threads=1)
    encoder = GatedEncoder(alone._loaded._encoder)  # type: ignore[union-attr]
    settings = ServeSettings(packs=KINDS.packs[:1], threads=1)
    running = start_app(settings, ServedPacks.open(settings), lambda: {("pairs", "default-fp32"): encoder}, None)
    requests = [(f"{QUERY} {'cat ' * (number % 3)}", DOCUMENTS[number % 4 :]) for number in range(12)]

    async def run() -> list[Answer]:
        bodies = [json.dumps({"model": "pairs", "query": query, "documents": texts}) for query, texts in requests]
        tasks = [asyncio.create_task(call(running.app, "POST", "/v1/rerank", body.encode())) for body in bodies]
        while len(running.engine) < len(requests):
            await asyncio.sleep(0)
        encoder.gate.set()
        return await asyncio.gather(*tasks)

    try:
        answers = asyncio.run(run())
    finally:
        running.engine.stop()
    for answer, (query, texts) in zip(answers, requests, strict=True):
        np.testing.assert_allclose(scores(answer), alone.score(query, texts), atol=1e-5)
    # Pairs of different requests share batches.
    assert max(encoder.batches) > len(DOCUMENTS)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query": None}, "query"),
        ({"query": " "}, "query"),
        ({"query": {"image": "aGk="}}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "a cat"}, "documents"),
        ({"documents": ["a"] * 3000}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a\0"]}, "documents[0]"),
        ({"documents": ["a", {"text": "b", "image": "c"}]}, "documents[1]"),
        ({"documents": ["a", {}]}, "documents[1]"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": 1, "top_k": 2}, "top_k"),
        ({"task": "retrieval"}, "task"),
        ({"instruction": "find it"}, "instruction"),
        ({"max_doc_length": 5}, "max_doc_length"),
        ({"return_embeddings": True}, "return_embeddings"),
        ({"model": "vectors"}, "model"),
        ({"model": "tokens", "task": "clustering"}, "task"),
    ],
)
def test_fields_that_cannot_be_used_are_named(kinds: Running, fields: Any, field: str) -> None:
    answer = rerank(kinds, PAIRS | fields)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, field), answer.body
    assert kinds.engine.ready


@pytest.mark.parametrize("model", ["pairs", "tokens"])
def test_long_documents_are_cut_unless_that_is_refused(kinds: Running, model: str) -> None:
    fields = {"model": model, "query": QUERY, "documents": ["a", "cat " * 2000]}
    assert rerank(kinds, fields).status == 200
    refused = rerank(kinds, {**fields, "truncation": False})
    assert (refused.status, refused.json["detail"]["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert refused.json["detail"]["message"].startswith("documents[1] ")


def test_a_query_that_leaves_no_room_is_named() -> None:
    packs = ServedPacks.open(ServeSettings(packs=KINDS.packs[:1], threads=1))
    served = packs.packs["pairs"]
    assert isinstance(served.manifest.score, PairScores)
    recipe = msgspec.structs.replace(served.manifest.score, cut="document", max_query_tokens=None)
    pack = replace(served.pack, manifest=msgspec.structs.replace(served.manifest, score=recipe))
    running = start_app(KINDS, ServedPacks({"pairs": replace(served, pack=pack)}, 1), packs.load, None)
    try:
        answer = rerank(running, {**PAIRS, "query": "cat " * 500})
    finally:
        running.engine.stop()
    assert answer.json["errors"][0]["field"] == "query"
    assert "leaves no room for a document" in answer.json["detail"]


def test_unknown_models_and_fields(kinds: Running) -> None:
    unknown = rerank(kinds, {**PAIRS, "model": "pair"})
    assert (unknown.status, unknown.json["detail"]["code"]) == (400, "INPUT_MODEL_NOT_FOUND")
    objects = [{"text": text, "title": "ignored"} for text in DOCUMENTS]
    assert scores(rerank(kinds, {**PAIRS, "documents": objects, "rank": 1})) == scores(rerank(kinds, PAIRS))


def test_rerankers_have_no_vectors(kinds: Running) -> None:
    answer = post(kinds.app, {"model": "pairs", "input": "a cat"})
    assert answer.json["detail"] == "model: pairs gives scores, not vectors; call /v1/rerank"
    models = {model["id"]: model for model in get(kinds.app, "/v1/models").json["data"]}
    assert models["pairs"]["outputs"] == ["score"]
    assert models["pairs"]["output_modalities"] == ["scores"]
    assert models["tokens"]["outputs"] == ["single", "multi"]


def test_scores_that_are_not_finite_are_an_error_of_their_request(
    kinds: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ScoreReading, outputs: Any) -> Any:
        raise PackError("a score is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(ScoreReading, "values", fail)
        assert rerank(kinds, PAIRS).status == 500
    assert rerank(kinds, PAIRS).status == 200


def test_vectors_stay_those_of_embedder(kinds: Running) -> None:
    """Packs of several kinds share the engine."""
    with Embedder(TINY_PACK, weights="fp32", threads=1) as model:
        expected = model.encode(DOCUMENTS).codes
    answer = post(kinds.app, {"model": "vectors", "input": DOCUMENTS, "truncate": True})
    assert (np.array([item["embedding"] for item in answer.json["data"]], np.float32) == expected).all()
