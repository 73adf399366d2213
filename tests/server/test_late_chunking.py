"""`late_chunking` of `/v1/embeddings`: the inputs are the chunks of one document, as in `Embedder.encode_chunks`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack_export.pipeline import export
from tests.helpers.asgi import call, post
from tests.helpers.exports import quick
from tests.helpers.server import Running, start_app
from tests.helpers.tiny_checkpoint import WORDS, make_checkpoint

SHORT = ["the cat sleeps", "on a warm roof", "in the rain"]
# More than two windows of 32 tokens.
LONG = [*WORDS[:60], "the cat sleeps on a warm roof " * 6]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("server") / "toy")
    export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32",)))
    return checkpoint.parent / "pack"


@pytest.fixture(scope="module")
def running(pack: Path) -> Iterator[Running]:
    settings = ServeSettings(packs=(PackSettings(name="toy", folder=pack),), threads=1)
    packs = ServedPacks.open(settings)
    started = start_app(settings, packs, packs.load, None)
    yield started
    started.engine.stop()


def request(chunks: list[Any], **fields: Any) -> dict[str, Any]:
    """Body of a request; `fields` replace or add fields."""
    return {"model": "toy", "input": chunks, "late_chunking": True, "task": "retrieval.passage", **fields}


@pytest.mark.parametrize("chunks", [SHORT, LONG, SHORT[:1]])
@pytest.mark.parametrize("dimensions", [None, 8])
def test_vectors_are_those_of_encode_chunks(
    running: Running, pack: Path, chunks: list[str], dimensions: int | None
) -> None:
    model = Embedder(pack, threads=1)
    expected = model.encode_chunks(chunks, prompt_name="passage", truncate_dim=dimensions)
    data = post(running.app, request(chunks, dimensions=dimensions)).json["data"]
    assert [row["index"] for row in data] == list(range(len(chunks)))
    np.testing.assert_allclose([row["embedding"] for row in data], expected.codes, atol=1e-6)
    codes = post(running.app, request(chunks, embedding_type="int8", dimensions=dimensions)).json["data"]
    int8 = model.encode_chunks(chunks, prompt_name="passage", truncate_dim=dimensions, precision="int8").codes
    assert (np.array([row["embedding"] for row in codes]) == int8).all()


def test_requests_of_both_kinds_at_a_time(running: Running, pack: Path) -> None:
    model = Embedder(pack, threads=1)
    documents = [SHORT, LONG, SHORT[1:], LONG[:9]]
    bodies = [request(chunks, late_chunking=late, truncate=True) for chunks in documents for late in (True, False)]

    async def run() -> list[Any]:
        calls = (call(running.app, "POST", "/v1/embeddings", json.dumps(body).encode()) for body in bodies)
        return await asyncio.gather(*calls)

    for body, answer in zip(bodies, asyncio.run(run()), strict=True):
        encode = model.encode_chunks if body["late_chunking"] else model.encode
        found = [row["embedding"] for row in answer.json["data"]]
        np.testing.assert_allclose(found, encode(body["input"], prompt_name="passage").codes, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"input": ["a", "\x02"]}, "input[1]", "the text has no token; leave it out"),
        ({"return_multivector": True}, "late_chunking", "chunks have single vectors; leave out return_multivector"),
        (
            {"input": ["a", {"image": "aGk="}]},
            "late_chunking",
            "documents have texts only, no images; leave it out",
        ),
    ],
)
def test_calls_that_cannot_be(running: Running, fields: dict[str, Any], field: str, message: str) -> None:
    answer = post(running.app, request(SHORT, **fields))
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, field)
    assert message in answer.json["detail"]


def test_a_pack_without_it_is_refused_with_the_reason(shared: Running) -> None:
    answer = post(shared.app, {"model": "tiny", "input": SHORT, "late_chunking": True})
    assert answer.status == 422
    assert (
        "tiny: no late chunking: layers follow the pooling of this model, or an older embedpack"
        in answer.json["detail"]
    )
