"""Bodies of requests: read within limits of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from embedpack.server.request_errors import ErrorKind, RequestError
from embedpack.server.settings import Limits


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body; RequestError if it is too large or too slow, ClientDisconnect if the client is gone."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _read(request, limits)
    except TimeoutError as cause:
        raise RequestError(ErrorKind.SLOW_BODY, f"the body took more than {limits.body_seconds:g} seconds") from cause


async def _read(request: Request, limits: Limits) -> bytes:
    parts, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limits: Limits) -> RequestError:
    return RequestError(ErrorKind.TOO_LARGE, f"the body has more than {limits.body_bytes} bytes; send several requests")
