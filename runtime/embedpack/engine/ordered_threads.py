"""Calls that go on at the same time, a thread each, and whose results arrive in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_ordered(calls: Iterable[Callable[[], Result]], workers: int) -> Generator[Result, None, None]:
    """Results of calls in the order of the calls, `workers` of which go on at a time.

    Calls are taken from the iterable by the caller's own thread, at most one more than can go on. After an error, or
    when the caller loses interest, those that go on are waited for and no others begin.

    Args:
        calls: each independent of the others.
        workers: at least 1.

    Raises:
        BaseException: what the first call that failed, or the iterable, raised.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="embedpack")
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
