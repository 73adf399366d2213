"""Submission of a request to the engine: waits for the result, the deadline, or the end of the client."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from embedpack.server.engine_thread import EngineThread
from embedpack.server.jobs import Job, JobResult, Outcome, RequestInputs
from embedpack.server.request_errors import ErrorKind, RequestError


async def computed_result(engine: EngineThread, work: RequestInputs, request: Request, deadline: float) -> JobResult:
    """Result of the engine; errors as of its jobs.

    RequestError if the queue is full, or after `deadline` seconds; ClientDisconnect if the client is gone before.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def deliver(outcome: Outcome) -> None:
        loop.call_soon_threadsafe(_settle, future, outcome)

    job = Job(work, deliver)
    engine.submit(job)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        awaited: set[asyncio.Future[Any]] = {future, gone}
        await asyncio.wait(awaited, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not future.done():
            engine.cancel(job)
    if future.done():
        outcome = future.result()
        if isinstance(outcome, JobResult):
            return outcome
        raise outcome
    if gone.done():
        raise ClientDisconnect
    raise RequestError(ErrorKind.DEADLINE, f"not computed within {deadline:g} seconds; send fewer inputs")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
