"""Concurrent calls with results in the order of the calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# Calls that wait for a worker, so that none waits while the next call is made.
AHEAD = 2


def run_ordered(calls: Iterable[Callable[[], Result]], workers: int) -> Generator[Result, None, None]:
    """Run independent calls on a pool of threads and yield their results in the order of the calls.

    The caller's own thread takes the calls from the iterable, at most AHEAD more than there are workers. After an
    error, or if the generator is closed, running calls are completed and no others start; the first error is raised.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="embedpack")
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) >= workers + AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
