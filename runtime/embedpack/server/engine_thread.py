"""The thread that loads the packs and runs their graphs for all requests.

There is one for all packs, as they share the cores. Whenever it is free it takes all waiting requests: requests that
arrive during a computation are batched, and a request that is alone starts at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from embedpack.engine.encoder import Batch, Encoder
from embedpack.errors import EmbedpackError
from embedpack.host.memory import memory_errors
from embedpack.inputs.batching import token_budget_batches
from embedpack.server.jobs import Job, Outcome
from embedpack.server.metrics import Metrics
from embedpack.server.request_errors import ErrorKind, RequestError, describe_bug
from embedpack.server.schedule import TURN_TOKENS, Row, Schedule, rows_of_turn
from embedpack.vectors.arrays import Float32

logger = logging.getLogger("embedpack.server")

Encoders = Mapping[tuple[str, str], Encoder]


class EngineThread:
    """The queue of requests and the thread that works on it.

    Attributes:
        ready: True while the thread takes jobs.
        failure: error that ended the thread; None: it runs, or was stopped.
    """

    def __init__(
        self, load: Callable[[], Encoders], queue: int, metrics: Metrics, on_failure: Callable[[], None]
    ) -> None:
        """`load` gives the encoders by pack and variant; `queue` is the most jobs at a time.

        `on_failure` is called in the thread when it ends by an error.
        """
        self.ready = False
        self.failure: BaseException | None = None
        self._load = load
        self._queue = queue
        self._metrics = metrics
        self._on_failure = on_failure
        self._encoders: Encoders = {}
        self._changed = threading.Condition()
        self._schedule = Schedule()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="embedpack-engine", daemon=True)

    def __len__(self) -> int:
        """Number of jobs that wait or are computed."""
        with self._changed:
            return len(self._schedule)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def wait_until_loaded(self) -> None:
        """Wait until the packs are loaded, or have failed to."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready or self.failure is not None)

    def stop(self) -> None:
        """End the thread after the turn that runs; jobs that wait get a RequestError."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def check(self) -> None:
        """Raise RequestError if the queue is full, or the thread does not run."""
        with self._changed:
            if not self.ready:
                raise RequestError(ErrorKind.UNAVAILABLE, "the server is loading its packs or shutting down; try again")
            if len(self._schedule) >= self._queue:
                raise RequestError(ErrorKind.QUEUE_FULL, f"{self._queue} requests are waiting; try again")

    def submit(self, job: Job) -> None:
        """Add a job; errors as of `check`."""
        with self._changed:
            self.check()
            self._schedule.add(job)
            self._changed.notify()
        self._metrics.queue_depth.inc()

    def cancel(self, job: Job) -> None:
        """Forget a job whose result nobody waits for; rows that are not computed yet never are."""
        job.cancelled = True
        self._remove(job)

    def _main(self) -> None:
        try:
            self._encoders = self._load()
            with self._changed:
                self.ready = True
                self._changed.notify_all()
            while (jobs := self._next()) is not None:
                self._take_turn(jobs)
        except BaseException as error:
            self.failure = error
            if not isinstance(error, EmbedpackError):
                logger.error("the engine ended: %s", describe_bug(error))
        finally:
            with self._changed:
                self.ready = False
                self._changed.notify_all()
            for job in list(self._schedule):
                self._finish(job, RequestError(ErrorKind.UNAVAILABLE, "the server stops; try another"))
            if self.failure is not None:
                self._on_failure()

    def _next(self) -> list[Job] | None:
        """Jobs of the next turn, when there are any; None: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._schedule))
            return None if self._stopping else self._schedule.next_turn()

    def _take_turn(self, jobs: Sequence[Job]) -> None:
        ready = [job for job in jobs if self._tokenized(job)]
        if not ready:
            return
        alone = len(ready) == 1 and not self._others_wait()
        try:
            self._compute(rows_of_turn(ready, None if alone else TURN_TOKENS), interruptible=alone)
        except EmbedpackError as error:
            if len(ready) == 1:
                self._finish(ready[0], error)
            # One by one, so that only the job that fails has the error.
            for job in ready if len(ready) > 1 else ():
                self._take_turn([job])

    def _tokenized(self, job: Job) -> bool:
        if job.cancelled or job.tokenized:
            return not job.cancelled
        try:
            with memory_errors():
                job.tokenize(self._encoder(job).processor)
        except (RequestError, EmbedpackError) as error:
            self._finish(job, error)
            return False
        return True

    def _compute(self, rows: Sequence[Row], *, interruptible: bool) -> None:
        key, encoder = rows[0].job.work.key, self._encoder(rows[0].job)
        batches = self._batches(rows, encoder.token_budget, interruptible=interruptible)
        with memory_errors():
            for batch, vectors in encoder.compute(batches, key.output, key.adapter):
                self._metrics.observe_batch(batch.tokens, sum(len(each.ids) for each in batch.inputs))
                for row, vector in zip(batch.rows, vectors, strict=True):
                    self._add(rows[row], vector)

    def _batches(self, rows: Sequence[Row], budget: int, *, interruptible: bool) -> Iterator[Batch]:
        """Batches of rows by length; rows of cancelled jobs are left out."""
        for numbers in token_budget_batches([row.length for row in rows], budget):
            wanted = [number for number in numbers if not rows[number].job.cancelled]
            if not wanted:
                continue
            inputs = [rows[number].job.inputs[rows[number].number] for number in wanted]
            yield Batch(np.array(wanted, np.intp), inputs)
            if interruptible and self._others_wait():
                return

    def _add(self, row: Row, vector: Float32) -> None:
        row.job.waiting.remove(row.number)
        if row.job.add(row.number, vector) and not row.job.cancelled:
            self._finish(row.job, _outcome(row.job))

    def _encoder(self, job: Job) -> Encoder:
        return self._encoders[job.work.key.model, job.work.key.variant]

    def _others_wait(self) -> bool:
        with self._changed:
            return len(self._schedule) > 1

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._remove(job)
        job.deliver(outcome)

    def _remove(self, job: Job) -> None:
        with self._changed:
            removed = self._schedule.remove(job)
        if removed:
            self._metrics.queue_depth.dec()


def _outcome(job: Job) -> Outcome:
    """Result of a job whose rows are all computed, or its error."""
    try:
        return job.result()
    except EmbedpackError as error:
        return error
