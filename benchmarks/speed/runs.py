"""Measurements in turns: everything once, then everything again, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.jobs import WorkerError
from benchmarks.speed.workloads import Workload
from benchmarks.spreads import spread
from embedpack import EmbedpackError
from embedpack.progress import Progress
from embedpack_export.metrics.cosines import row_cosines, summarise_cosines

# Characters of a reason.
SHOWN = 300
Found = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One measurement, to be repeated.

    Attributes:
        who: the variant or the peer.
        is_peer: whether it may fail: the others go on then.
        workload: the inputs.
        threads: for a call.
        batching: of texts of mixed lengths; empty for fixed shapes.
        vectors: file that the vectors are written to.
        measure: does it.
    """

    who: str
    is_peer: bool
    workload: Workload
    threads: int
    batching: str
    vectors: str
    measure: Callable[[], Found]


def in_turns(runs: Sequence[Run], repetitions: int) -> tuple[dict[Run, list[Found]], dict[str, str]]:
    """What was found for each run, and the reasons of peers that failed, by "PEER, WORKLOAD".

    A slow minute of the host hits all of them alike.

    Raises:
        EmbedpackError: one that is no peer failed.
    """
    measured: dict[Run, list[Found]] = {run: [] for run in runs}
    failed: dict[str, str] = {}
    with Progress("measuring", repetitions * len(runs)) as progress:
        for _ in range(repetitions):
            for run in list(measured):
                try:
                    measured[run].append(run.measure())
                except EmbedpackError as error:
                    if not run.is_peer:
                        raise
                    failed[f"{run.who}, {run.workload.name}"] = reason_of(error)
                    del measured[run]
                progress.advance(1)
    return measured, failed


def reason_of(error: EmbedpackError) -> str:
    """Why it failed, in a line; of a worker, without the job that it was asked to do."""
    return (error.reason if isinstance(error, WorkerError) else str(error)).splitlines()[0][:SHOWN]


def figures(run: Run, found: Sequence[Found]) -> dict[str, Any]:
    """Time, speed and memory, each as a spread over the repetitions."""
    return {
        "wall_s": spread([item["wall_s"] for item in found]),
        "cpu_s": spread([item["cpu_s"] for item in found]),
        "tokens_per_s": spread([run.workload.tokens / item["wall_s"] for item in found]),
        "peak_bytes": spread([item["memory"]["peak"] for item in found]),
        "anonymous_bytes": spread([item["memory"]["anonymous"] for item in found]),
    }


def ratios(found: Sequence[Found] | None, other: Sequence[Found] | None, key: str) -> dict[str, float] | None:
    """How many times the other's time this takes, repetition by repetition; None where one of them is missing."""
    if found is None or other is None:
        return None
    return spread([one[key] / two[key] for one, two in zip(found, other, strict=True)])


def cosines(run: Run, reference: str) -> dict[str, float]:
    """Mean and lowest cosine of the vectors of a run with the reference's."""
    summary = summarise_cosines(row_cosines(np.load(run.vectors), np.load(reference)), digits=6)
    return {"mean": summary.mean, "min": summary.min}
