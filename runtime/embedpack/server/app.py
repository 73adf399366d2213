"""The routes of a server as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from embedpack.errors import CapacityError, EmbedpackError, InputError, MissingExtraError
from embedpack.inputs.items import Item
from embedpack.server.answers import encode_answer
from embedpack.server.api_keys import ApiKeys
from embedpack.server.body import BodyMemoryLimit
from embedpack.server.engine_thread import EngineThread
from embedpack.server.jobs import RequestInputs
from embedpack.server.metrics import Metrics
from embedpack.server.middleware import RequestMiddleware, RequestRecord
from embedpack.server.pdf_pages import PdfPages
from embedpack.server.request_errors import ErrorKind, Form, RequestError, describe_bug
from embedpack.server.request_items import RequestItems
from embedpack.server.requests import check_call, decode_body, form_of
from embedpack.server.schemas import ModelsAnswer
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import ServeSettings
from embedpack.server.submission import computed_result

logger = logging.getLogger("embedpack.server")

JSON = "application/json"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Status of a request whose client is gone; nobody reads it.
CLIENT_GONE = 499


@dataclass(frozen=True)
class Service:
    """Everything that the routes need."""

    settings: ServeSettings
    packs: ServedPacks
    engine: EngineThread
    metrics: Metrics
    bodies: BodyMemoryLimit
    pdfs: PdfPages

    @classmethod
    def of(cls, settings: ServeSettings, packs: ServedPacks, engine: EngineThread, metrics: Metrics) -> Service:
        """Service of some packs; `engine` loads them."""
        limits = settings.limits
        return cls(settings, packs, engine, metrics, BodyMemoryLimit(limits), PdfPages(limits.images))

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        record: RequestRecord = request.state.record
        form: Form = "jina"
        try:
            async with self.bodies.read(request) as body:
                start = perf_counter()
                form = form_of(body)
                self.engine.check()
                return Response(await self._embeddings(request, body, form, start), media_type=JSON)
        except ClientDisconnect:
            self.metrics.rejected.labels("cancelled").inc()
            return Response(status_code=CLIENT_GONE)
        except RequestError as problem:
            return self._refusal(problem, form, record)
        except EmbedpackError as error:
            return self._refusal(_request_error(error), form, record)
        except Exception as error:  # a bug must not end the server
            return self._refusal(RequestError(ErrorKind.INTERNAL, describe_bug(error)), form, record)

    async def _embeddings(self, request: Request, body: bytes, form: Form, start: float) -> bytes:
        record: RequestRecord = request.state.record
        fields = decode_body(body, form)
        served = self.packs.find(fields.model)
        call = check_call(fields, self.settings.limits, data_uris=served.takes_images)
        task = served.task(call)
        vector_format = served.vector_format(call, task.task)
        limits = self.settings.limits
        tokens = min(limits.tokens, limits.vector_tokens) if call.multi else limits.tokens
        until = start + self.settings.deadline
        parsed = perf_counter()
        async with self._items(call.inputs, request, until) as items:
            record.items = len(items)
            rendered = perf_counter()
            work = RequestInputs(served.key(call, task.task), items, task.prompt, call.truncate, tokens)
            result = await computed_result(self.engine, work, request, until)
        computed = perf_counter()
        answer = await encode_answer(fields.model, result, vector_format, multi=call.multi)
        record.tokens = result.tokens
        self.metrics.tokens.inc(result.tokens)
        seconds = {"parse": parsed - start, **result.seconds, "encode": perf_counter() - computed}
        if call.inputs.pdf is not None:
            seconds["render"] = rendered - parsed
        self.metrics.observe_stages(seconds)
        return answer

    @asynccontextmanager
    async def _items(self, inputs: RequestItems, request: Request, until: float) -> AsyncIterator[Sequence[Item]]:
        """Inputs of a call: as they were sent, or the pages of a PDF."""
        if inputs.pdf is None:
            yield inputs.items
        else:
            async with self.pdfs.rendered(inputs.pdf, request, until) as pages:
                yield pages

    def _refusal(self, problem: RequestError, form: Form, record: RequestRecord) -> Response:
        self.metrics.rejected.labels(problem.kind.name.lower()).inc()
        if problem.kind is ErrorKind.INTERNAL:
            # A message for who runs the server: it has paths.
            logger.error("%s: %s", record.id, problem.message)
            problem = RequestError(ErrorKind.INTERNAL, "the server failed; its log has the reason by the request's id")
        return Response(problem.body(form, record.id), problem.status(form), problem.headers, JSON)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        answer = ModelsAnswer(data=[served.described() for served in self.packs.packs.values()])
        return Response(msgspec.json.encode(answer), media_type=JSON)

    async def health(self, request: Request) -> Response:
        """`GET /health`: the process answers."""
        return Response(b'{"status":"alive"}', media_type=JSON)

    async def ready(self, request: Request) -> Response:
        """`GET /ready`: the packs are loaded, their golden vectors are right, and the engine runs."""
        if self.engine.ready:
            return Response(b'{"status":"ready"}', media_type=JSON)
        state = "loading" if self.engine.failure is None else "failed"
        return Response(msgspec.json.encode({"status": state}), 503, {"retry-after": "5"}, JSON)

    async def metrics_text(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.metrics.text(), media_type=METRICS_TYPE)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer to a path or a method that does not exist."""
        assert isinstance(error, HTTPException)
        kind = ErrorKind.NOT_FOUND if error.status_code == 404 else ErrorKind.WRONG_METHOD
        return self._refusal(RequestError(kind, f"{error.detail}; see docs/server.md"), "jina", request.state.record)


def make_app(service: Service, keys: ApiKeys | None) -> ASGIApp:
    """ASGI application of a service."""
    routes = [
        Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        Route("/embeddings", service.embeddings, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/health", service.health),
        Route("/ready", service.ready),
        Route("/metrics", service.metrics_text),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: service.refuse})
    return RequestMiddleware(app, service.metrics, keys, access_log=service.settings.access_log)


def _request_error(error: EmbedpackError) -> RequestError:
    if isinstance(error, InputError | MissingExtraError):
        return RequestError(ErrorKind.INVALID, str(error), "input")
    if isinstance(error, CapacityError):
        return RequestError(ErrorKind.TOO_LARGE, str(error), "input")
    return RequestError(ErrorKind.INTERNAL, str(error))
