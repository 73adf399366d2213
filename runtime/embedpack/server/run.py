"""A server from start to end: one process, or several that listen on one port."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager

from embedpack.server.api_keys import ApiKeys
from embedpack.server.listeners import listen, listen_for_workers, warn_if_open
from embedpack.server.process import Process, serve_process
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import ServeSettings
from embedpack.server.workers import serve_workers

logger = logging.getLogger("embedpack.server")

# Starts the log of a process.
Log = Callable[[], AbstractContextManager[None]]


def serve(settings: ServeSettings, log: Log) -> int:
    """Serve packs until SIGTERM or SIGINT; return the exit status, 1 if an engine or a worker ended by itself.

    `log` starts the log of each worker.

    Raises:
        PackError, CapacityError: a pack cannot be loaded, or gives other vectors than on the machine where it was made.
        InputError: the address or the file of keys cannot be used, or two packs have one name.
        KeyboardInterrupt: SIGINT, after the requests that were running.
    """
    packs = ServedPacks.open(settings)
    keys = None if settings.api_keys is None else ApiKeys(settings.api_keys)
    if settings.workers > 1:
        listeners = listen_for_workers(settings.host, settings.port, settings.workers)
        _announce(listeners[0], keys)
        return serve_workers(settings, listeners, log)
    with listen(settings.host, settings.port) as listener:
        _announce(listener, keys)
        return serve_process(Process(settings, packs, keys, listener))


def _announce(listener: socket.socket, keys: ApiKeys | None) -> None:
    host, port = listener.getsockname()[:2]
    if keys is None:
        warn_if_open(host)
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
