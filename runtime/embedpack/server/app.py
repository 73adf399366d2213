"""The routes of a server as an ASGI application."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from embedpack.server.api_keys import ApiKeys
from embedpack.server.embeddings import EmbeddingsEndpoint
from embedpack.server.middleware import RequestMiddleware
from embedpack.server.openapi import openapi_document
from embedpack.server.pages import constant, page
from embedpack.server.request_errors import ErrorKind, RequestError
from embedpack.server.rerank import RerankEndpoint
from embedpack.server.schemas import ModelsAnswer
from embedpack.server.service import JSON, Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class StateRoutes:
    """Routes that only read the state of a server."""

    service: Service

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        packs = self.service.packs.packs.values()
        return Response(msgspec.json.encode(ModelsAnswer(data=[pack.described() for pack in packs])), media_type=JSON)

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        try:
            found = self.service.packs.find(request.path_params["model"])
        except RequestError as problem:
            unknown = RequestError(ErrorKind.NOT_FOUND, problem.message)
            return self.service.refusal(unknown, "jina", request.state.record)
        return Response(msgspec.json.encode(found.described()), media_type=JSON)

    async def health(self, request: Request) -> Response:
        """`GET /health`: the process answers."""
        return Response(b'{"status":"alive"}', media_type=JSON)

    async def ready(self, request: Request) -> Response:
        """`GET /ready`: the packs are loaded, their golden vectors are right, and the engines of all workers run."""
        engine = self.service.engine
        if engine.ready and self.service.all_ready():
            return Response(b'{"status":"ready"}', media_type=JSON)
        state = "loading" if engine.failure is None else "failed"
        return Response(msgspec.json.encode({"status": state}), 503, {"retry-after": "5"}, JSON)

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.service.metrics.text(), media_type=METRICS_TYPE)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer to a path or a method that does not exist."""
        assert isinstance(error, HTTPException)
        kind = ErrorKind.NOT_FOUND if error.status_code == 404 else ErrorKind.WRONG_METHOD
        problem = RequestError(kind, f"{error.detail}; see docs/server.md")
        answer = self.service.refusal(problem, "jina", request.state.record)
        answer.headers.update(error.headers or {})  # the methods that there are
        return answer


def make_app(service: Service, keys: ApiKeys | None) -> ASGIApp:
    """ASGI application of a service."""
    state, embeddings, rerank = StateRoutes(service), EmbeddingsEndpoint(service), RerankEndpoint(service)
    routes = [
        Route("/v1/embeddings", embeddings.post, methods=["POST"]),
        Route("/embeddings", embeddings.post, methods=["POST"]),
        Route("/v1/rerank", rerank.post, methods=["POST"]),
        Route("/rerank", rerank.post, methods=["POST"]),
        Route("/v1/models", state.models),
        Route("/v1/models/{model:path}", state.model),
        Route("/health", state.health),
        Route("/ready", state.ready),
        Route("/metrics", state.metrics),
        Route("/openapi.json", constant(openapi_document(), JSON)),
        Route("/docs", page("docs.html")),
        Route("/", page("page.html")),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: state.refuse})
    return RequestMiddleware(app, service.metrics, keys, access_log=service.settings.access_log)
