"""HTTP/1.1 over a connection, with a limit of time for the headers of a request."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol_with_limit(seconds: float) -> type[H11Protocol]:
    """Protocol that closes a connection whose next request has no complete headers after some seconds.

    A connection that is kept open between two requests has the limit of uvicorn, until the first byte.
    """

    class TimedProtocol(H11Protocol):
        """A connection that has to send its headers in time."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            """Begin to wait for headers."""
            super().connection_made(transport)
            self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            """Take bytes; the time for the headers begins with the first of them."""
            super().data_received(data)
            self._wait_for_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            """End."""
            self._cancel()
            super().connection_lost(exc)

        def _wait_for_headers(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._cancel()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)

        def _cancel(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return TimedProtocol
