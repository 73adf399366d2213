"""One process of a server: event loop, engine's thread, signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import uvicorn

from embedpack.errors import EmbedpackError
from embedpack.server.api_keys import ApiKeys
from embedpack.server.app import make_app
from embedpack.server.engine_thread import EngineThread
from embedpack.server.listeners import BACKLOG
from embedpack.server.metrics import Metrics
from embedpack.server.protocol import LimitedProtocol
from embedpack.server.served_packs import ServedPacks
from embedpack.server.service import Service
from embedpack.server.settings import ServeSettings

# Longer than the connection pools of clients keep a connection, so that they close it, not the server.
KEEP_ALIVE_SECONDS = 75
# Seconds after which a thread that waits for the interpreter gets it. The engine's thread would keep the event loop
# waiting for Python's 5 ms at each of its steps; a request that is refused needs several.
SWITCH_SECONDS = 0.0005
FAILED = 1


@dataclass(frozen=True)
class WorkerGroup:
    """The part of a process in a group of workers.

    Attributes:
        report_ready: called when the engine has loaded.
        all_ready: True if the engines of all workers have loaded.
        wait_for_end: returns when the process that started the workers has ended.
        metrics_folder: folder of the metrics of all workers.
    """

    report_ready: Callable[[], None]
    all_ready: Callable[[], bool]
    wait_for_end: Callable[[], object]
    metrics_folder: str


@dataclass(frozen=True)
class Process:
    """Everything that a process serves; `group` None: it is alone."""

    settings: ServeSettings
    packs: ServedPacks
    keys: ApiKeys | None
    listener: socket.socket
    group: WorkerGroup | None = None


class DrainingServer(uvicorn.Server):
    """A server whose process ends with status 0 after SIGTERM and the requests that were running."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at signals; of those that uvicorn raises again at the end, SIGTERM is left out."""
        with super().capture_signals():
            yield
            self._captured_signals = [number for number in self._captured_signals if number != signal.SIGTERM]


def serve_process(process: Process) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status, 1 if the engine ended by itself.

    Raises:
        PackError, CapacityError: a pack cannot be loaded, or gives other vectors than on the machine where it was made.
        KeyboardInterrupt: SIGINT, after the requests that were running.
    """
    settings, group = process.settings, process.group
    metrics = Metrics(None if group is None else group.metrics_folder)
    engine = EngineThread(process.packs.load, settings.queue, metrics, on_failure=lambda: _stop(server))
    service = Service.of(settings, process.packs, engine, metrics)
    if group is not None:
        service = replace(service, all_ready=group.all_ready)
    server = DrainingServer(_config(make_app(service, process.keys), settings))
    sys.setswitchinterval(SWITCH_SECONDS)
    engine.start()
    if group is not None:
        _in_thread(lambda: _report(engine, group))
        _in_thread(lambda: _stop_after(group.wait_for_end, server))
    asyncio.run(_serve(server, process.listener, process.keys))
    if engine.failure is not None:
        if isinstance(engine.failure, EmbedpackError):
            raise engine.failure
        return FAILED
    engine.stop()
    return 0


async def _serve(server: uvicorn.Server, listener: socket.socket, keys: ApiKeys | None) -> None:
    if keys is not None and hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, keys.reload)
    await server.serve([listener])


def _in_thread(function: Callable[[], object]) -> None:
    threading.Thread(target=function, daemon=True).start()


def _report(engine: EngineThread, group: WorkerGroup) -> None:
    engine.wait_until_loaded()
    if engine.failure is None:
        group.report_ready()


def _stop_after(wait: Callable[[], object], server: uvicorn.Server) -> None:
    wait()
    _stop(server)


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


def _config(app: object, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's type of ASGI applications is narrower than Starlette's
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        # uvicorn only calls it
        http=partial(LimitedProtocol, settings.limits.receive_seconds),  # type: ignore[arg-type]
        loop="asyncio",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.deadline + settings.limits.receive_seconds) + 1,
    )
