"""Bodies of requests: read within limits of size, time, and memory of all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from embedpack.server.request_errors import ErrorKind, RequestError
from embedpack.server.settings import Limits

# Bodies of the largest size that may be in memory at a time.
LARGEST_BODIES = 8


class BodyMemoryLimit:
    """Bodies that are in memory."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body and hold it during the block.

        RequestError if it is too large, too slow, or one too many; ClientDisconnect if the client is gone.
        """
        limits = self._limits
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limits.body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(limits.receive_seconds):
                    await self._receive(request, parts)
            except TimeoutError as cause:
                message = f"the body took more than {limits.receive_seconds:g} seconds"
                raise RequestError(ErrorKind.SLOW_BODY, message) from cause
            yield b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _receive(self, request: Request, parts: list[bytes]) -> None:
        size, more = 0, True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            self._held += len(part)
            if size > self._limits.body_bytes:
                raise self._too_large()
            if self._held > LARGEST_BODIES * self._limits.body_bytes:
                raise RequestError(ErrorKind.UNAVAILABLE, "the bodies of other requests fill the memory; try again")
            more = message.get("more_body", False)

    def _too_large(self) -> RequestError:
        message = f"the body has more than {self._limits.body_bytes} bytes; send several requests"
        return RequestError(ErrorKind.TOO_LARGE, message)
