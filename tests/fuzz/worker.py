"""A process that makes tries, with limits of time and memory, so that it alone ends if one goes wrong."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from embedpack.host.memory import peak_memory
from tests.fuzz.outcome import Attempt, Case, Fuzzer, Result, outcome_of

# Beyond it, allocations fail.
MAX_ADDRESSES = 8_000_000_000


@dataclass(frozen=True)
class Limits:
    """Limits of one try."""

    seconds: int = 20  # of CPU time
    memory: int = 1_500_000_000  # growth of the resident memory
    wait: int = 600  # seconds on the clock, preparations included: for tries that wait without computing


def work(fuzzers: Mapping[str, Fuzzer], cases: Sequence[Case], limits: Limits, results: Connection) -> None:
    """Make tries, and send each result; the parent learns from its absence that this process has died."""
    _silence()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
    attempts: dict[str, Attempt] = {}
    with tempfile.TemporaryDirectory() as home:
        for case in cases:
            if case.fuzzer not in attempts:
                attempts[case.fuzzer] = _prepare(fuzzers[case.fuzzer], Path(home) / str(len(attempts)))
            results.send(_one_try(case, attempts[case.fuzzer], limits))


def _prepare(fuzzer: Fuzzer, folder: Path) -> Attempt:
    """Function of a try of a fuzzer; an exception here is an error of the fuzzer, and no outcome."""
    folder.mkdir()
    _limit_seconds(resource.RLIM_INFINITY)
    return fuzzer.prepare(folder)


def _one_try(case: Case, attempt: Attempt, limits: Limits) -> Result:
    """Make a try within the limits; beyond that of time, the system ends the process."""
    before = peak_memory()
    _limit_seconds(int(time.process_time()) + 1 + limits.seconds)
    result = outcome_of(case, attempt)
    growth = peak_memory() - before
    if growth > limits.memory and result.outcome != "crash":
        return Result(case, "hang", f"{growth // 10**6} MB of memory; {result.detail}")
    return result


def _limit_seconds(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _silence() -> None:
    """Discard messages that libraries print when they abort."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
