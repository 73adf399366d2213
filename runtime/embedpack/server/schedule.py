"""Choice of the rows that run next: keys take turns, and the requests of a key share each turn.

A large request cannot keep a small one waiting for longer than a turn. A request that waits alone runs as a whole, in
the batches of a call of `Embedder.encode`, and is interrupted between two batches if another arrives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedpack.server.jobs import Job
from embedpack.server.served_packs import ForwardKey

# Tokens of a turn while several requests wait: some ten batches, so that texts of similar length can share a batch.
TURN_TOKENS = 4096


@dataclass(frozen=True)
class Row:
    """An input of a job."""

    job: Job
    number: int

    @property
    def length(self) -> int:
        """Number of its tokens."""
        return self.job.length(self.number)


class Schedule:
    """Jobs by key, the key whose turn is next first. Not safe for threads."""

    def __init__(self) -> None:
        self._jobs: dict[ForwardKey, list[Job]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    def add(self, job: Job) -> None:
        """Add a job behind those of its key."""
        self._jobs.setdefault(job.work.key, []).append(job)

    def remove(self, job: Job) -> bool:
        """Remove a job; False if it is not there."""
        jobs = self._jobs.get(job.work.key, [])
        if job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self._jobs[job.work.key]
        return True

    def next_turn(self) -> list[Job]:
        """All jobs of the next key, which goes behind the other keys."""
        key = next(iter(self._jobs))
        jobs = self._jobs.pop(key)
        self._jobs[key] = jobs
        return list(jobs)


def rows_of_turn(jobs: Sequence[Job], tokens: int | None) -> list[Row]:
    """Waiting rows of jobs of one key: an equal share of `tokens` for each, at least one row; None: all rows."""
    share = None if tokens is None else tokens // len(jobs)
    return [Row(job, number) for job in jobs for number in _share(job, share)]


def _share(job: Job, tokens: int | None) -> list[int]:
    if tokens is None:
        return list(job.waiting)
    used, numbers = 0, list[int]()
    for number in job.waiting:
        used += job.length(number)
        if numbers and used > tokens:
            break
        numbers.append(number)
    return numbers
