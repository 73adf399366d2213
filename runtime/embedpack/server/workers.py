"""Worker processes that listen on one port, and the process that starts, stops and watches them.

Each worker is a whole server; the weights of prepared graphs are in memory once, as the files are mapped. A worker that
ends by itself ends all of them with an error: what starts the server (systemd, Kubernetes) starts it again.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from types import FrameType

from embedpack.errors import EmbedpackError
from embedpack.server.api_keys import ApiKeys
from embedpack.server.metrics import FOLDER_VARIABLE
from embedpack.server.process import FAILED, Process, WorkerGroup, serve_process
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import ServeSettings

logger = logging.getLogger("embedpack.server")

STOPPED = (0, -signal.SIGTERM)  # -SIGTERM: before its handler was there


@dataclass(frozen=True)
class WorkerJob:
    """Everything that a worker is started with; `ready` has a flag for each worker."""

    settings: ServeSettings
    number: int
    ready: MutableSequence[int]
    metrics_folder: str
    log: Callable[[], AbstractContextManager[None]]


def serve_workers(
    settings: ServeSettings,
    listeners: Sequence[socket.socket],
    log: Callable[[], AbstractContextManager[None]],
) -> int:
    """Serve with a process for each listener until SIGTERM or SIGINT; return the exit status, 1 if one ended by itself.

    `log` starts the log of a worker. KeyboardInterrupt: SIGINT, after the requests that were running.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.RawArray("b", len(listeners))
    with tempfile.TemporaryDirectory(prefix="embedpack-metrics-") as folder:
        jobs = [WorkerJob(settings, number, ready, folder, log) for number in range(len(listeners))]
        workers = [
            context.Process(target=_work, args=(job, listener), name=f"worker-{job.number}", daemon=True)
            for job, listener in zip(jobs, listeners, strict=True)
        ]
        watch = Watch(workers, reloads=settings.api_keys is not None)
        with watch.signals():
            # Read by the metrics' library when a worker imports it.
            os.environ[FOLDER_VARIABLE] = folder
            for worker, listener in zip(workers, listeners, strict=True):
                worker.start()
                listener.close()
            del os.environ[FOLDER_VARIABLE]
            return watch.wait()


class Watch:
    """Workers that are stopped together, by a signal or when one of them ends."""

    def __init__(self, workers: Sequence[SpawnProcess], *, reloads: bool) -> None:
        """`reloads`: SIGHUP is for the workers, which read their keys again; else it stops them."""
        self._workers = workers
        self._reloads = reloads
        self._stopped_by: int | None = None

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Stop the workers at signals during the block, or pass SIGHUP on."""
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self._pass_on if self._reloads else self._stop
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self) -> int:
        """Wait until all workers have ended; exit status. KeyboardInterrupt if SIGINT stopped them."""
        running, failed = list(self._workers), False
        if self._stopped_by is not None:  # while they were started
            self._send(signal.SIGTERM)
        while running:
            multiprocessing.connection.wait([worker.sentinel for worker in running])
            for worker in [worker for worker in running if worker.exitcode is not None]:
                running.remove(worker)
                if self._stopped_by is None or worker.exitcode not in STOPPED:
                    failed = True
                    logger.error("%s (process %d) %s", worker.name, worker.pid, _described(worker.exitcode))
            if failed:
                self._send(signal.SIGTERM)
        if self._stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        return FAILED if failed else 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped_by = number
        self._send(signal.SIGTERM)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._send(number)

    def _send(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, number)


def _described(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}; all workers are stopped"
    return f"ended with exit status {status}; all workers are stopped"


def _work(job: WorkerJob, listener: socket.socket) -> None:
    # Ctrl-C of a terminal is a signal to its process group; the first process stops the workers.
    os.setpgrp()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the keys are read after this
    parent = multiprocessing.parent_process()
    assert parent is not None

    def report_ready() -> None:
        job.ready[job.number] = 1

    group = WorkerGroup(report_ready, lambda: all(job.ready), parent.join, job.metrics_folder)
    settings = job.settings
    with job.log():
        try:
            keys = None if settings.api_keys is None else ApiKeys(settings.api_keys)
            status = serve_process(Process(settings, ServedPacks.open(settings), keys, listener, group))
        except EmbedpackError as error:
            logger.error("%s", error)
            status = FAILED
    sys.exit(status)
