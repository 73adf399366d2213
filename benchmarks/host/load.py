"""Load on a server: requests over many connections, in a closed loop of clients or at given times."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
# Seconds after which an answer counts as lost; far beyond the deadline of the server.
PATIENCE = 600


@dataclass(frozen=True)
class Reply:
    """Answer to a request: status, 0 if it is lost; seconds since the time at which it was to be sent; body."""

    request: int
    status: int
    seconds: float
    body: bytes


class Connections:
    """Connections to one port that are kept open, at most one request at a time on each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, number: int, content: bytes, due: float) -> Reply:
        """Send the bytes of a request, due at a time of `perf_counter`, and read the answer."""
        connection = None
        try:
            async with asyncio.timeout(PATIENCE):
                connection = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
                status, body = await _answer(*connection, content)
        except (OSError, EOFError, TimeoutError):
            if connection is not None:
                connection[1].close()
            return Reply(number, 0, time.perf_counter() - due, b"")
        self._idle.append(connection)
        return Reply(number, status, time.perf_counter() - due, body)

    def close(self) -> None:
        """Close all connections; no request runs."""
        for _, writer in self._idle:
            writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> tuple[int, bytes]:
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    assert length is not None
    return int(head[9:12]), await reader.readexactly(int(length[1]))


def closed_loop(port: int, requests: Sequence[bytes], clients: int) -> list[Reply]:
    """Send requests, each client its next one when the last is answered; answers in the order of the requests."""

    async def run() -> list[Reply]:
        connections, replies = Connections(port), list[Reply]()
        waiting = iter(range(len(requests)))

        async def client() -> None:
            for number in waiting:
                replies.append(await connections.call(number, requests[number], time.perf_counter()))

        await asyncio.gather(*(client() for _ in range(clients)))
        connections.close()
        return sorted(replies, key=lambda reply: reply.request)

    return asyncio.run(run())


def open_loop(port: int, requests: Sequence[bytes], rate: float, seed: int) -> list[Reply]:
    """Send requests at random times (Poisson), `rate` a second, whether those before are answered or not."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, len(requests))

    async def run() -> list[Reply]:
        connections, start = Connections(port), time.perf_counter()
        calls = []
        for number, due in enumerate(start + np.cumsum(gaps)):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            calls.append(asyncio.create_task(connections.call(number, requests[number], float(due))))
        replies = await asyncio.gather(*calls)
        connections.close()
        return replies

    return asyncio.run(run())
