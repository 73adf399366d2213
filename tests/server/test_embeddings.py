"""`/v1/embeddings`: vectors are those of `Embedder.encode`, alone and among other requests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder
from tests.helpers.asgi import Answer, call, get, post
from tests.helpers.server import Running
from tests.server.conftest import GatedEncoder

TEXTS = [
    "a cat sleeps on the roof", "x", "where is the router", "def double(x): return 2 * x",
    *(f"text number {number} " * (number % 7 + 1) for number in range(40)),
]  # fmt: skip
PRECISIONS = {"float": "float32", "base64": "float32", "int8": "int8", "binary": "binary", "ubinary": "binary"}


def array(answer: Answer, encoding: str) -> Any:
    """Vectors of an answer as Embedder returns them."""
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    rows = [item["embedding"] for item in data]
    if encoding == "base64":
        return np.array([np.frombuffer(base64.b64decode(row, validate=True), "<f4") for row in rows])
    if encoding == "binary":
        return (np.array(rows) + 128).astype(np.uint8)
    return np.array(rows, {"float": np.float32, "int8": np.int8, "ubinary": np.uint8}[encoding])


@pytest.mark.parametrize("encoding", PRECISIONS)
@pytest.mark.parametrize("dimensions", [None, 16])
@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS])
def test_a_request_alone_has_the_vectors_of_embedder(
    shared: Running, embedder: Embedder, encoding: str, dimensions: int | None, texts: list[str]
) -> None:
    fields = {"model": "tiny", "input": texts, "embedding_type": encoding, "dimensions": dimensions, "truncate": True}
    expected = embedder.encode(texts, precision=PRECISIONS[encoding], truncate_dim=dimensions).codes
    assert (array(post(shared.app, fields), encoding) == expected).all()


def test_several_types_are_an_object_for_each_vector(shared: Running) -> None:
    fields = {"model": "tiny", "input": TEXTS[:2]}
    several = post(shared.app, {**fields, "embedding_type": list(PRECISIONS)}).json["data"]
    for encoding in PRECISIONS:
        single = post(shared.app, {**fields, "embedding_type": encoding}).json["data"]
        assert [item["embedding"][encoding] for item in several] == [item["embedding"] for item in single]
    assert several[1]["embedding"].keys() == PRECISIONS.keys()


def test_vectors_do_not_depend_on_batch_mates(start: Callable[..., Running], embedder: Embedder) -> None:
    expected = embedder.encode(TEXTS).codes
    encoder = GatedEncoder(embedder._encoder)
    running = start(encoder)
    requests = [TEXTS[number % 5 :: 1 + number % 9] for number in range(64)]

    async def run() -> list[Answer]:
        bodies = [json.dumps({"model": "tiny", "input": texts, "truncate": True}).encode() for texts in requests]
        tasks = [asyncio.create_task(call(running.app, "POST", "/v1/embeddings", body)) for body in bodies]
        while len(running.engine) < len(requests):
            await asyncio.sleep(0)
        encoder.gate.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(run())
    for number, answer in enumerate(answers):
        rows = expected[number % 5 :: 1 + number % 9]
        found = array(answer, "float").astype(np.float64)
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(rows.astype(np.float64), axis=1)
        assert (1 - (found * rows).sum(axis=1) / lengths <= 1e-6).all()
    # Requests share batches: all of them alone would be more.
    assert len(encoder.batches) < sum(len(texts) for texts in requests) / 2


def test_every_text_of_a_prompt_has_it(shared: Running, embedder: Embedder) -> None:
    prompts = embedder.prompts
    fields = {"model": "tiny", "input": TEXTS[0], "task": "retrieval.query"}
    expected = embedder.encode(TEXTS[0], prompt_name="query" if "query" in prompts else "").codes
    assert (array(post(shared.app, fields), "float") == expected).all()


def test_the_answer_has_all_fields_that_clients_read(shared: Running) -> None:
    answer = post(
        shared.app, {"model": "jina-ai/tiny", "input": [{"text": "x"}], "encoding_format": "base64", "user": "u"}
    )
    assert answer.json["model"] == "jina-ai/tiny"
    assert answer.json["object"] == "list"
    assert answer.json["usage"] == {"total_tokens": 3, "prompt_tokens": 3}
    assert answer.json["data"][0].keys() == {"object", "index", "embedding"}
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"embedding_type": "ubinary"}, {"encoding_type": "ubinary"}),
        ({"dimensions": 8}, {"output_dimension": 8}),
        ({"dimensions": 8}, {"output_dimensionality": 8, "dimensions": 8}),
        ({"task": "retrieval.query"}, {"task_type": "retrieval.query"}),
        ({"task": "retrieval.passage"}, {"input_type": "document"}),
        ({"truncate": True}, {"truncation": True, "unknown": [1]}),
        ({"normalized": True}, {"late_chunking": False, "return_multivector": None}),
    ],
)
def test_fields_have_the_names_of_other_vendors(shared: Running, first: Any, second: Any) -> None:
    answers = [post(shared.app, {"model": "tiny", "input": ["a cat"], **fields}) for fields in (first, second)]
    assert answers[0].status == 200
    assert answers[0].json == answers[1].json


def test_long_texts_are_refused_unless_they_are_to_be_truncated(shared: Running, embedder: Embedder) -> None:
    text = "cat " * 100
    refused = post(shared.app, {"model": "tiny", "input": ["a", text]})
    assert (refused.status, refused.json["detail"]["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert "input[1]" in refused.json["detail"]["message"]
    answer = post(shared.app, {"model": "tiny", "input": [text], "truncate": True})
    assert answer.json["usage"]["total_tokens"] == embedder.pack.manifest.text.max_tokens
    assert (array(answer, "float") == embedder.encode(text).codes).all()


def test_a_model_is_described_by_its_name(shared: Running) -> None:
    (listed,) = get(shared.app, "/v1/models").json["data"]
    for name in ("tiny", "jina-ai/tiny"):
        assert get(shared.app, f"/v1/models/{name}").json == listed
    unknown = get(shared.app, "/v1/models/tina")
    assert (unknown.status, unknown.json["detail"]["code"]) == (404, "RESOURCE_NOT_FOUND")
