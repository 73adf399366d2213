"""A client that calls an ASGI application in this process, without sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    """Answer of an application."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, parsed."""
        return json.loads(self.body)


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes | None = b"",
    headers: dict[str, str] | None = None,
    gone: asyncio.Event | None = None,
    complete: bool = True,
) -> Answer:
    """Call an application; `gone` is set when the client disconnects.

    Without a body, the client never sends one; it never ends one that is not `complete`.
    """
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, "query_string": b"", "root_path": ""}
    sent: list[Message] = []
    parts = [] if body is None else [{"type": "http.request", "body": body, "more_body": not complete}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]))


def post(app: ASGIApp, fields: Any, **headers: str) -> Answer:
    """Post JSON, or bytes or None as they are, to `/v1/embeddings`."""
    body = fields if fields is None or isinstance(fields, bytes) else json.dumps(fields).encode()
    return asyncio.run(call(app, "POST", "/v1/embeddings", body, headers))


def get(app: ASGIApp, path: str, **headers: str) -> Answer:
    """Get a path."""
    return asyncio.run(call(app, "GET", path, headers=headers))
