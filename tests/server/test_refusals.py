"""Bodies that cannot be used: one error in the form of the API that was called, and the server goes on."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedpack.server.request_errors import RequestError
from embedpack.server.requests import EmbeddingsCall, check_call, decode_body, form_of
from embedpack.server.settings import Limits
from tests.helpers.asgi import Answer, call, get, post
from tests.helpers.server import Running

VALID = {"model": "tiny", "input": ["a cat"]}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"model": "tiny", "input": "\xff"}', b'{"model": "tiny", "input": "\\ud800"}',
        b'{"model": "tiny", "input": ' + b"[" * 100_000, b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "tiny", "input": ["a"]} {}',
    ],
    ids=range(9),
)  # fmt: skip
def test_malformed_and_deep_json(shared: Running, body: bytes) -> None:
    answer = post(shared.app, body)
    assert answer.status == 422
    assert answer.json.keys() == {"detail", "request_id", "errors"}
    assert post(shared.app, VALID).status == 200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", " "]}, "input[1]"),
        ({"input": ["a\0"]}, "input[0]"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": [{"text": "a", "image": "b"}]}, "input[0]"),
        ({"input": [{"image": "aGk="}]}, "input"),
        ({"input": ["a"] * 10_000}, "input"),
        ({"dimensions": 7}, "dimensions"),
        ({"dimensions": 8, "output_dimension": 16}, "output_dimension"),
        ({"embedding_type": "float16"}, "embedding_type"),
        ({"embedding_type": []}, "embedding_type"),
        ({"embedding_type": ["float", "float"]}, "embedding_type"),
        ({"embedding_type": ["float", "float16"]}, "embedding_type"),
        ({"input_type": "passage"}, "input_type"),
        ({"task": "classification"}, "task"),
        ({"normalized": False}, "normalized"),
        ({"late_chunking": True}, "late_chunking"),
        ({"return_multivector": True}, "return_multivector"),
    ],
)
def test_fields_that_cannot_be_used_are_named_in_both_forms(shared: Running, fields: Any, field: str) -> None:
    jina = post(shared.app, VALID | fields)
    assert (jina.status, jina.json["errors"][0]["field"]) == (422, field)
    assert jina.json["detail"] == jina.json["errors"][0]["message"]
    if field == "embedding_type":
        return
    openai = post(shared.app, VALID | {"encoding_format": "float"} | fields)
    assert openai.status == 400
    assert openai.json["error"].keys() == {"message", "type", "param", "code"}
    assert openai.json["error"]["param"] == field


def test_unknown_fields_are_refused_where_openai_does(shared: Running) -> None:
    assert post(shared.app, VALID | {"unknown": 1}).status == 200
    refused = post(shared.app, VALID | {"unknown": 1, "encoding_format": "float"})
    assert refused.status == 400
    assert "unknown" in refused.json["error"]["message"]


def test_unknown_models_have_the_code_of_each_api(shared: Running) -> None:
    jina = post(shared.app, VALID | {"model": "tina"})
    assert (jina.status, jina.json["detail"]["code"]) == (400, "INPUT_MODEL_NOT_FOUND")
    assert "did you mean 'tiny'?" in jina.json["detail"]["message"]
    openai = post(shared.app, VALID | {"model": "tina", "encoding_format": "float"})
    assert (openai.status, openai.json["error"]["code"]) == (404, "model_not_found")


def test_paths_and_methods_that_do_not_exist(shared: Running) -> None:
    assert get(shared.app, "/v2").status == 404
    assert get(shared.app, "/v1/embeddings").status == 405


@pytest.mark.parametrize("header", [True, False])
def test_too_large_bodies_are_refused_before_they_are_parsed(start: Callable[..., Running], header: bool) -> None:
    running = start(limits=Limits(body_bytes=1000))
    body = json.dumps(VALID | {"input": "a" * 1000}).encode()
    answer = post(running.app, body, **({"content-length": str(len(body))} if header else {}))
    assert (answer.status, answer.json["detail"]["code"]) == (413, "INPUT_TOO_LARGE")


def test_a_body_that_comes_too_slowly_is_refused(start: Callable[..., Running]) -> None:
    running = start(limits=Limits(receive_seconds=0.01))
    answer = post(running.app, None)
    assert (answer.status, answer.json["detail"]["code"]) == (408, "REQUEST_TIMEOUT")


def test_bodies_in_memory_are_limited_together(start: Callable[..., Running]) -> None:
    """Clients that send almost all of a large body hold memory; after they are gone, others get on."""
    running = start(limits=Limits(body_bytes=1000))
    body = json.dumps(VALID | {"user": "a" * 900}).encode()

    async def run() -> tuple[list[Answer], Answer, Answer]:
        gone = asyncio.Event()
        slow = [
            asyncio.create_task(call(running.app, "POST", "/v1/embeddings", body, gone=gone, complete=False))
            for _ in range(8)
        ]
        await asyncio.sleep(0)
        refused = await call(running.app, "POST", "/v1/embeddings", body)
        gone.set()
        answers = list(await asyncio.gather(*slow))
        return answers, refused, await call(running.app, "POST", "/v1/embeddings", body)

    answers, refused, served = asyncio.run(run())
    assert [answer.status for answer in answers] == [499] * 8
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert served.status == 200


def test_too_many_tokens_are_refused(start: Callable[..., Running]) -> None:
    running = start(limits=Limits(tokens=5))
    assert post(running.app, VALID).status == 200
    answer = post(running.app, VALID | {"input": ["a cat", "a cat"]})
    assert (answer.status, answer.json["detail"]["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")


def png(width: int, height: int) -> bytes:
    """A black image, which compresses to almost nothing."""
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("!!!!", "base64"),
        ("aGk", "base64"),
        ("aGk=\n", "base64"),
        ("caf\u00e9", "base64"),
        ("data:image/png,aGk=", "data URI"),
        ("http://127.0.0.1/x.png", "fetches nothing"),
        ("aGk=", "no image that can be read"),
        (base64.b64encode(png(60, 60)[:-30]).decode(), "damaged"),
    ],
)
def test_images_that_cannot_be_used(images: Running, image: str, message: str) -> None:
    answer = post(images.app, {"model": "tiny", "input": [{"image": image}]})
    assert answer.status == 422
    assert message in answer.json["detail"]
    assert images.engine.ready


def test_image_bombs_are_refused_by_their_headers(images: Running) -> None:
    bomb = png(20_000, 20_000)
    assert len(bomb) < 100_000
    for image in (base64.b64encode(bomb).decode(), "data:image/png;base64," + base64.b64encode(bomb).decode()):
        answer = post(images.app, {"model": "tiny", "input": [{"image": image}]})
        assert answer.status == 413
        assert "20000 x 20000" in answer.json["detail"]["message"]
    # A client for images sends plain strings.
    assert post(images.app, {"model": "tiny", "input": ["data:image/png;base64,aGk="]}).status == 422


def test_images_of_a_request_are_limited(images: Running) -> None:
    answer = post(images.app, {"model": "tiny", "input": [{"image": "aGk="}] * 9})
    assert "at most 8" in answer.json["detail"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*msgspec.structs.asdict(decode_body(b'{"model": "m"}', "jina")), "user", "other"])


def outcome(body: bytes) -> EmbeddingsCall | RequestError:
    """A checked call, or the only error that there may be."""
    try:
        return check_call(decode_body(body, form_of(body)), Limits(), data_uris=True)
    except RequestError as error:
        return error


@given(st.dictionaries(NAMES, JSON_VALUES, max_size=5))
def test_any_fields_are_a_call_or_a_request_error(fields: dict[str, Any]) -> None:
    found = outcome(json.dumps({"model": "m", "input": "a", **fields}).encode())
    if isinstance(found, RequestError):
        assert found.status("jina") in (400, 422)
        assert json.loads(found.body("openai", "id"))["error"]["message"] == found.message
    else:
        assert found.inputs.items or found.inputs.pdf


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_error(body: bytes) -> None:
    found = outcome(body)
    assert isinstance(found, RequestError)
    assert found.status("jina") == 422
