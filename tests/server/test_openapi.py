"""`/openapi.json`: paths, schemas and statuses are those of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from embedpack.server.error_schemas import JinaFieldErrors, OpenAIError
from embedpack.server.middleware import OPEN_PATHS, RequestMiddleware
from embedpack.server.openapi import OPERATIONS
from embedpack.server.rank_schemas import RankBody
from embedpack.server.request_errors import ErrorKind, RequestError, error_schema
from embedpack.server.schemas import JinaBody, OpenAIBody
from tests.helpers.asgi import get, post
from tests.helpers.server import Running

PAGES = {"/openapi.json", "/docs", "/"}
# Other paths of endpoints.
SHORT = {"/embeddings", "/rerank"}


@pytest.fixture(scope="module")
def document(shared: Running) -> dict[str, Any]:
    answer = get(shared.app, "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = answer.json
    return found


def values(tree: Any, key: str) -> Iterator[Any]:
    """Values of a key, at any depth."""
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if name == key:
            yield value
        yield from values(value, key)


def test_all_routes_are_described(shared: Running, document: dict[str, Any]) -> None:
    assert isinstance(shared.app, RequestMiddleware)
    assert isinstance(shared.app._app, Starlette)
    routes = [route for route in shared.app._app.routes if isinstance(route, Route)]
    described = {path: set(methods) for path, methods in document["paths"].items()}
    found = {route.path.replace(":path", ""): {name.lower() for name in route.methods or ()} for route in routes}
    assert {path: methods - {"head"} for path, methods in found.items() if path not in PAGES | SHORT} == described


def test_paths_without_a_key_are_described(document: dict[str, Any]) -> None:
    opened = {path for path, methods in document["paths"].items() for each in methods.values() if "security" in each}
    assert opened == set(OPEN_PATHS) - PAGES


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    names = {reference.rpartition("/")[2] for reference in values(document, "$ref")}
    assert names == set(schemas)
    assert all(schema["description"] for schema in schemas.values())


def test_fields_of_requests_are_described(document: dict[str, Any]) -> None:
    for body in (JinaBody, OpenAIBody, RankBody):
        fields = document["components"]["schemas"][body.__name__]["properties"]
        assert list(fields) == list(body.__struct_fields__)
        assert all(field["description"] for field in fields.values())


@pytest.mark.parametrize("kind", ErrorKind)
def test_errors_have_their_schema(kind: ErrorKind) -> None:
    problem = RequestError(kind, "why", "input")
    for form in ("jina", "openai"):
        body = json.loads(problem.body(form, "id"))
        assert msgspec.to_builtins(msgspec.convert(body, error_schema(kind, form))) == body


@pytest.mark.parametrize("kind", ErrorKind)
def test_statuses_of_errors_are_described(document: dict[str, Any], kind: ErrorKind) -> None:
    (operation,) = (each for each in OPERATIONS if each.path == "/v1/embeddings")
    described = document["paths"]["/v1/embeddings"]["post"]["responses"]
    if kind not in operation.errors:
        assert kind in (ErrorKind.NOT_FOUND, ErrorKind.WRONG_METHOD)
        return
    for answer in (kind.jina, kind.openai):
        assert (answer.code or "a field") in described[str(answer.status)]["description"]


def test_fields_that_the_schema_lists_are_those_that_are_read(shared: Running, document: dict[str, Any]) -> None:
    """Each listed name is refused with a wrong value, so none of them is merely ignored."""
    for name in document["components"]["schemas"]["JinaBody"]["properties"]:
        for form, schema in (({}, JinaFieldErrors), ({"encoding_format": "float"}, OpenAIError)):
            body = {"model": "tiny", "input": "a", **form, name: {"a": {}}}
            answer = post(shared.app, body)
            assert answer.status in (400, 422), name
            msgspec.json.decode(answer.body, type=OpenAIError if name == "encoding_format" else schema)


@pytest.mark.parametrize("path", sorted(PAGES - {"/openapi.json"}))
def test_pages_load_nothing_from_elsewhere(shared: Running, path: str) -> None:
    answer = get(shared.app, path)
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert b"http" not in answer.body.replace(b'"http"', b"")
    assert b" style=" not in answer.body
    assert b" on" + b"click=" not in answer.body
