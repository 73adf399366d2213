"""The thread that loads the packs and runs their graphs for all requests.

There is one for all packs, as they share the cores. It makes each batch when a core is free, of all rows that wait
then: requests that arrive during a computation are batched, and a request that is alone starts at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from embedpack.engine.encoder import Batch, Encoder
from embedpack.errors import EmbedpackError
from embedpack.host.memory import memory_errors
from embedpack.server.jobs import Job, Outcome
from embedpack.server.metrics import Metrics
from embedpack.server.request_errors import ErrorKind, RequestError, describe_bug
from embedpack.server.schedule import KEY_TOKENS, Row, Schedule
from embedpack.server.served_packs import ForwardKey

logger = logging.getLogger("embedpack.server")

# Few enough that no thread waits for a batch meanwhile, more than the requests of a batch.
TOKENIZED_AT_A_TIME = 4

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
            while (key := self._next()) is not None:
                self._take_turn(key)
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

    def _next(self) -> ForwardKey | None:
        """Key of the next turn, when there is one; None: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._schedule))
            return None if self._stopping else self._schedule.next_key()

    def _take_turn(self, key: ForwardKey) -> None:
        taken = deque[list[Row]]()
        try:
            self._compute(key, self._batches(self._schedule, key, taken), taken)
        except EmbedpackError:
            # One by one, so that only the job that fails has the error.
            jobs = dict.fromkeys(row.job for rows in taken for row in rows)
            for job in jobs or self._jobs_of(key):
                self._compute_alone(job)

    def _jobs_of(self, key: ForwardKey) -> list[Job]:
        with self._changed:
            return [job for job in self._schedule if job.work.key == key]

    def _compute_alone(self, job: Job) -> None:
        schedule, key, taken = Schedule(), job.work.key, deque[list[Row]]()
        schedule.add(job)
        if job.tokenized:
            job.wait_again()
        try:
            self._compute(key, self._batches(schedule, key, taken), taken)
        except EmbedpackError as error:
            self._finish(job, error)

    def _compute(self, key: ForwardKey, batches: Iterator[Batch], taken: deque[list[Row]]) -> None:
        encoder = self._encoders[key.model, key.variant]
        with memory_errors():
            for batch, vectors in encoder.compute(batches, key.output, key.adapter):
                self._metrics.observe_batch(batch.tokens, sum(each.length for each in batch.inputs))
                for row, vector in zip(taken.popleft(), vectors, strict=True):
                    if row.job.add(row.number, vector) and not row.job.cancelled:
                        self._finish(row.job, _outcome(row.job))

    def _batches(self, schedule: Schedule, key: ForwardKey, taken: deque[list[Row]]) -> Iterator[Batch]:
        """Batches of the rows of a key that wait when each is taken; they end when other keys have waited for a turn.

        Requests are tokenized while batches run.
        """
        tokens = 0
        while not self._stopping:
            with self._changed:
                if tokens >= KEY_TOKENS and schedule.has_others(key):
                    return
                new = schedule.untokenized(key, TOKENIZED_AT_A_TIME)
            for job in new:
                self._tokenize(job)
            with self._changed:
                rows = schedule.take(key, self._encoders[key.model, key.variant].token_budget)
            if rows:
                taken.append(rows)
                batch = Batch(np.arange(len(rows)), [row.model_input for row in rows])
                tokens += batch.tokens
                yield batch
            elif not new:
                return

    def _tokenize(self, job: Job) -> None:
        try:
            with memory_errors():
                job.tokenize(self._encoders[job.work.key.model, job.work.key.variant].processor)
        except (RequestError, EmbedpackError) as error:
            self._finish(job, error)

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
