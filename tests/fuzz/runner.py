"""Runs tries in processes; one that ends before its tries do is replaced, and its end is the outcome of a try."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from tests.fuzz.outcome import Case, Fuzzer, Result
from tests.fuzz.worker import Limits, work


@dataclass
class Worker:
    """A process and the cases that it has not finished, in their order."""

    fuzzers: Mapping[str, Fuzzer]
    cases: deque[Case]
    limits: Limits
    process: SpawnProcess = field(init=False)
    results: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a process for the rest of the cases."""
        context = multiprocessing.get_context("spawn")
        self.results, sender = context.Pipe(duplex=False)
        self.process = context.Process(
            target=work, args=(self.fuzzers, list(self.cases), self.limits, sender), daemon=True
        )
        self.process.start()
        # The other end is now open in the process alone, so its death ends the connection.
        sender.close()

    def receive(self) -> Result:
        """The next result; that of the current case if the process has died, which a new one then replaces."""
        try:
            result: Result = self.results.recv()
        except EOFError:
            return self.replace(self.death())
        assert result.case == self.cases.popleft()
        return result

    def death(self) -> Result:
        """Outcome of the case at which the process died."""
        self.process.join()
        code = self.process.exitcode or 0
        if code > 0:
            raise RuntimeError(f"the fuzzer {self.cases[0].fuzzer!r} itself fails before try {self.cases[0].number}")
        timed_out = code in (-signal.SIGXCPU, -signal.SIGKILL)
        return Result(self.cases.popleft(), "hang" if timed_out else "crash", signal.Signals(-code).name)

    def replace(self, result: Result) -> Result:
        """Start a new process if there are cases left; return the result."""
        self.results.close()
        if self.cases:
            self.start()
        return result

    def kill(self) -> None:
        """End the process, which then counts as dead."""
        self.process.kill()


def run_cases(fuzzers: Mapping[str, Fuzzer], cases: Sequence[Case], limits: Limits, processes: int) -> Iterator[Result]:
    """Yield the result of every case, in any order; each process takes every n-th case."""
    shares = [deque(cases[number::processes]) for number in range(processes)]
    workers = [Worker(fuzzers, share, limits) for share in shares if share]
    while active := [worker for worker in workers if worker.cases]:
        ready = wait([worker.results for worker in active], limits.wait)
        for worker in active:
            if not ready:
                worker.kill()
            if not ready or worker.results in ready:
                yield worker.receive()
    for worker in workers:
        worker.process.join()
