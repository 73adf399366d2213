"""Everything around the routes: request ids, bearer keys, access log, counts of requests."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedpack.server.api_keys import ApiKeys
from embedpack.server.metrics import Metrics
from embedpack.server.request_errors import RequestError

logger = logging.getLogger("embedpack.access")

REQUEST_ID = "x-request-id"
# Paths without a key: orchestrators and browsers have none.
OPEN_PATHS = ("/health", "/ready", "/", "/docs", "/openapi.json")
PATHS = (*OPEN_PATHS, "/metrics", "/v1/models", "/v1/embeddings", "/v1/rerank")


@dataclass
class RequestRecord:
    """Facts about a request for its answer and the access log; no texts."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    items: int = 0
    tokens: int = 0
    status: int = 499


class RequestMiddleware:
    """Records, ids, keys and logs of requests; `scope["state"]["record"]` is the RequestRecord."""

    def __init__(self, app: ASGIApp, metrics: Metrics, keys: ApiKeys | None, *, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; 499 in the log: the client was gone before the answer."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        record, start = RequestRecord(), perf_counter()
        scope.setdefault("state", {})["record"] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message).append(REQUEST_ID, record.id)
            await send(message)

        try:
            await self._serve(scope, receive, send_with_id, record)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.requests.labels(path, str(record.status)).inc()
            if self._access_log:
                facts = {
                    "id": record.id,
                    "method": scope["method"],
                    "path": path,
                    "status": record.status,
                    "items": record.items,
                    "tokens": record.tokens,
                    "ms": round(1e3 * (perf_counter() - start), 1),
                }
                logger.info("%s %s %s %d, %d items, %d tokens, %.1f ms", *facts.values(), extra={"facts": facts})

    async def _serve(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        if self._keys is not None and scope["path"] not in OPEN_PATHS:
            authorization = Headers(scope=scope).get("authorization")
            try:
                self._keys.check(None if authorization is None else authorization.encode("latin-1"))
            except RequestError as problem:
                self._metrics.rejected.labels(problem.kind.name.lower()).inc()
                body = problem.body("jina", record.id)
                answer = Response(body, problem.status("jina"), problem.headers, "application/json")
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)
