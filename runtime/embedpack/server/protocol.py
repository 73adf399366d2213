"""HTTP/1.1 over a connection, with limits for clients that are slow, or send on after their answer."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

# Limits of the rest of a body after its answer; a client whose connection is closed at once would not see the answer.
REST_SECONDS = 2.0
REST_BYTES = 16_000_000


class LimitedProtocol(H11Protocol):
    """A connection that has to send its headers, and the rest of a body that nobody reads, in time.

    One that is kept open between two requests has the limit of uvicorn, until the first byte.
    """

    def __init__(
        self,
        receive_seconds: float,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`receive_seconds` is the time for the headers; the rest as of H11Protocol."""
        super().__init__(config, server_state, app_state, _loop)
        self._receive_seconds = receive_seconds
        self._awaited = 0.0  # seconds of the timer that runs; 0: none
        self._timer: asyncio.TimerHandle | None = None
        self._rest = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._wait(self._receive_seconds)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the time for the headers begins with the first of them."""
        if self._answered:
            self._rest += len(data)
            if self._rest > REST_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait(self._receive_seconds)
        elif not self._answered:
            self._wait(0)

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a body, if there is one."""
        super().on_response_complete()
        if self._answered:
            self._rest = 0
            self._wait(REST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._wait(0)
        super().connection_lost(exc)

    @property
    def _answered(self) -> bool:
        """True if a body goes on after its answer."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _wait(self, seconds: float) -> None:
        """Close the connection after some seconds, unless it is called again with others; 0: never."""
        if seconds == self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._awaited = seconds
        self._timer = self.loop.call_later(seconds, self.transport.close) if seconds else None
