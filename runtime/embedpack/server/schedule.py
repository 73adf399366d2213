"""Choice of the rows that run next: keys take turns, and so do the requests of a key.

Each batch begins with the longest row of the request whose turn it is. Rows of the other requests that are as long or
nearly so fill it, so little is spent on padding. A large request cannot keep a small one waiting for longer than a
turn. A request that is alone runs in the batches of a call of `Embedder.encode`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from embedpack.engine.encoder import rows_of_batches
from embedpack.inputs.processor import ModelInput
from embedpack.server.jobs import Job
from embedpack.server.served_packs import ForwardKey

# Tokens of a turn of a key while others wait: some ten batches, so that texts of similar length can share a batch.
KEY_TOKENS = 4096
# Tokens of a turn of a request: most requests are computed in one turn, in the order in which they came.
JOB_TOKENS = 1024


@dataclass(frozen=True)
class Row:
    """An input of a job."""

    job: Job
    number: int

    @property
    def length(self) -> int:
        """Number of its tokens."""
        return self.job.length(self.number)

    @property
    def model_input(self) -> ModelInput:
        """The input of the graph."""
        return self.job.inputs[self.number]


class Schedule:
    """Jobs by key, the key whose turn is next first. Not safe for threads."""

    def __init__(self) -> None:
        self._jobs: dict[ForwardKey, deque[Job]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    def add(self, job: Job) -> None:
        """Add a job behind those of its key."""
        self._jobs.setdefault(job.work.key, deque()).append(job)

    def remove(self, job: Job) -> bool:
        """Remove a job; False if it is not there."""
        jobs = self._jobs.get(job.work.key, deque())
        if job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self._jobs[job.work.key]
        return True

    def next_key(self) -> ForwardKey:
        """The next key, which goes behind the other keys."""
        key = next(iter(self._jobs))
        self._jobs[key] = self._jobs.pop(key)
        return key

    def has_others(self, key: ForwardKey) -> bool:
        """True if jobs of other keys wait."""
        return len(self._jobs) > (key in self._jobs)

    def untokenized(self, key: ForwardKey, most: int) -> list[Job]:
        """The first jobs of a key that are not tokenized."""
        return list(islice((job for job in self._jobs.get(key, ()) if not job.tokenized), most))

    def take(self, key: ForwardKey, budget: int) -> list[Row]:
        """Take the rows of the next batch of a key, longest first, from its tokenized jobs; none: no row waits."""
        jobs = [job for job in self._jobs.get(key, ()) if job.tokenized and job.waiting and not job.cancelled]
        if not jobs:
            return []
        first = jobs[0]
        longest = first.length(first.waiting[0])
        waiting = merge(*(_not_longer(job, longest) for job in jobs), key=lambda row: row.length, reverse=True)
        candidates = list(islice(waiting, max(1, budget // longest)))
        batch = next(rows_of_batches([row.model_input for row in candidates], budget))
        rows = [candidates[number] for number in batch]
        for row in rows:
            row.job.waiting.remove(row.number)
        self._count(first, longest * len(rows))
        return rows

    def _count(self, job: Job, tokens: int) -> None:
        """Count tokens of a job's turn; after JOB_TOKENS it goes behind the other jobs of its key."""
        job.turn_tokens += tokens
        if job.turn_tokens >= JOB_TOKENS:
            job.turn_tokens = 0
            jobs = self._jobs[job.work.key]
            jobs.remove(job)
            jobs.append(job)


def _not_longer(job: Job, length: int) -> Iterator[Row]:
    """Waiting rows of a job of at most `length` tokens, longest first."""
    start = bisect_left(job.waiting, -length, key=lambda row: -job.length(row))
    return (Row(job, number) for number in islice(job.waiting, start, None))
