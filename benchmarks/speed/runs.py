"""Interleaved measurements: every run once, then every run again, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.fresh_process import WorkerError
from benchmarks.speed.workloads import Workload
from benchmarks.spreads import Spread, spread
from embedpack import EmbedpackError
from embedpack.progress import Progress
from embedpack_export.metrics.cosines import row_cosines, summarise_cosines

MAX_REASON_CHARACTERS = 300
# Results of one measurement: "wall_s", "cpu_s", "memory", and "tokens_computed" of mixed lengths.
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A measurement of a variant or of a peer to repeat; the failure of a peer does not end the benchmark.

    `batching` is that of texts of mixed lengths, empty for fixed shapes; `vectors` the file that `measure` writes.
    """

    who: str
    is_peer: bool
    workload: Workload
    threads: int
    batching: str
    vectors: str
    measure: Callable[[], Measurement]


def run_interleaved(runs: Sequence[Run], repetitions: int) -> tuple[dict[Run, list[Measurement]], dict[str, str]]:
    """Measurements of every run, and the reasons of peers that failed, by "PEER, WORKLOAD".

    A slow minute of the host affects all runs alike.

    Raises:
        EmbedpackError: a run that is no peer failed.
    """
    measured: dict[Run, list[Measurement]] = {run: [] for run in runs}
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
    """Reason of a failure in one line, without the worker's job."""
    reason = error.reason if isinstance(error, WorkerError) else str(error)
    return reason.splitlines()[0][:MAX_REASON_CHARACTERS]


def figures(run: Run, measurements: Sequence[Measurement]) -> dict[str, Spread]:
    """Time, speed and memory of a run, each as a spread over the repetitions."""
    return {
        "wall_s": spread([each["wall_s"] for each in measurements]),
        "cpu_s": spread([each["cpu_s"] for each in measurements]),
        "tokens_per_s": spread([run.workload.tokens / each["wall_s"] for each in measurements]),
        "peak_bytes": spread([each["memory"]["peak"] for each in measurements]),
        "anonymous_bytes": spread([each["memory"]["anonymous"] for each in measurements]),
    }


def ratios(measurements: Sequence[Measurement] | None, other: Sequence[Measurement] | None, key: str) -> Spread | None:
    """Ratios of a time to the other run's, repetition by repetition; None if one of them was not measured."""
    if measurements is None or other is None:
        return None
    return spread([first[key] / second[key] for first, second in zip(measurements, other, strict=True)])


def cosines(run: Run, reference: str) -> dict[str, float]:
    """Mean and lowest cosine of a run's vectors with those in the reference's file."""
    summary = summarise_cosines(row_cosines(np.load(run.vectors), np.load(reference)), digits=6)
    return {"mean": summary.mean, "min": summary.min}
