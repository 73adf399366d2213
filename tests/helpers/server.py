"""A server as an application in this process, without sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from embedpack.server.api_keys import ApiKeys
from embedpack.server.app import make_app
from embedpack.server.engine_thread import EngineThread
from embedpack.server.metrics import Metrics
from embedpack.server.served_packs import ServedPacks
from embedpack.server.service import Service
from embedpack.server.settings import ServeSettings


@dataclass(frozen=True)
class Running:
    """An application and its parts."""

    app: ASGIApp
    service: Service
    failed: threading.Event

    @property
    def engine(self) -> EngineThread:
        return self.service.engine


def start_app(
    settings: ServeSettings, packs: ServedPacks, load: Callable[[], Any], keys: ApiKeys | None, *, wait: bool = True
) -> Running:
    """Start an application, and `wait` until its engine has loaded; `load` gives its encoders.

    Its engine has to be stopped.
    """
    metrics, failed = Metrics(), threading.Event()
    engine = EngineThread(load, settings.queue, metrics, failed.set)
    engine.start()
    if wait:
        engine.wait_until_loaded()
    service = Service.of(settings, packs, engine, metrics)
    return Running(make_app(service, keys), service, failed)
