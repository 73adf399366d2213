"""A server from start to end: socket, signals, exit status."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from embedpack.errors import EmbedpackError, InputError, failed
from embedpack.server.api_keys import ApiKeys
from embedpack.server.app import make_app
from embedpack.server.engine_thread import EngineThread
from embedpack.server.metrics import Metrics
from embedpack.server.served_packs import ServedPacks
from embedpack.server.service import Service
from embedpack.server.settings import ServeSettings

logger = logging.getLogger("embedpack.server")

BACKLOG = 2048
# Longer than the connection pools of clients keep a connection, so that they close it, not the server.
KEEP_ALIVE_SECONDS = 75
# Seconds after which a thread that waits for the interpreter gets it. The engine's thread would keep the event loop
# waiting for Python's 5 ms at each of its steps; a request that is refused needs several.
SWITCH_SECONDS = 0.0005
FAILED = 1


class DrainingServer(uvicorn.Server):
    """A server whose process ends with status 0 after SIGTERM and the requests that were running."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at signals; of those that uvicorn raises again at the end, SIGTERM is left out."""
        with super().capture_signals():
            yield
            self._captured_signals = [number for number in self._captured_signals if number != signal.SIGTERM]


def serve(settings: ServeSettings) -> int:
    """Serve packs until SIGTERM or SIGINT; return the exit status, 1 if the engine ended by itself.

    Raises:
        PackError, CapacityError: a pack cannot be loaded, or gives other vectors than on the machine where it was made.
        InputError: the address or the file of keys cannot be used, or two packs have one name.
        KeyboardInterrupt: SIGINT, after the requests that were running.
    """
    packs = ServedPacks.open(settings)
    keys = None if settings.api_keys is None else ApiKeys(settings.api_keys)
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        if keys is None:
            warn_if_open(host)
        metrics = Metrics()
        engine = EngineThread(packs.load, settings.queue, metrics, on_failure=lambda: _stop(server))
        app = make_app(Service.of(settings, packs, engine, metrics), keys)
        server = DrainingServer(_config(app, settings))
        sys.setswitchinterval(SWITCH_SECONDS)
        engine.start()
        logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        asyncio.run(_serve(server, listener, keys))
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
        http="h11",
        loop="asyncio",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.deadline + settings.limits.body_seconds) + 1,
    )


def warn_if_open(host: str) -> None:
    """Log a warning about a server without keys if an address is not that of this host alone."""
    if not ipaddress.ip_address(host).is_loopback:
        logger.warning("%s is reachable from other hosts, and everybody may call: pass --api-keys FILE", host)


def listen(host: str, port: int) -> socket.socket:
    """Socket that listens on an address; InputError if it cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # With its protocol named, unlike `socket.create_server`: asyncio sends the parts of an answer at once (without
        # waiting 40 ms for the client's acknowledgement) only if it sees that the protocol is TCP.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as cause:
        raise InputError(f"--host {host} --port {port} {failed('opened', cause)}") from cause
    return listener
