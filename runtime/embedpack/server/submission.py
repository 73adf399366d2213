"""Submission of a request to the engine: waits for the result, the deadline, or the end of the client."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from embedpack.server.engine_thread import EngineThread
from embedpack.server.jobs import Job, JobResult, Outcome
from embedpack.server.request_errors import ErrorKind, RequestError
from embedpack.server.work import Work

T = TypeVar("T")


async def computed_result(engine: EngineThread, work: Work, request: Request, until: float) -> JobResult:
    """Result of the engine; errors as of its jobs and `finished`, RequestError if the queue is full."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def deliver(outcome: Outcome) -> None:
        loop.call_soon_threadsafe(_settle, future, outcome)

    job = Job(work, deliver)
    engine.submit(job)
    try:
        outcome = await finished(future, request, until)
    finally:
        if not future.done():
            engine.cancel(job)
    if isinstance(outcome, JobResult):
        return outcome
    raise outcome


async def finished(future: asyncio.Future[T], request: Request, until: float) -> T:
    """Result of a future.

    RequestError at `until`, in seconds of `perf_counter`; ClientDisconnect if the client is gone before.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        awaited: set[asyncio.Future[Any]] = {future, gone}
        await asyncio.wait(awaited, timeout=until - perf_counter(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if future.done():
        return future.result()
    if gone.done():
        raise ClientDisconnect
    raise RequestError(ErrorKind.DEADLINE, "not computed within the server's time limit; send fewer inputs")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
