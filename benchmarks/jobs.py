"""What a worker process is asked to measure: one job a process, written as JSON on its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from embedpack import EmbedpackError
from embedpack_export.evaluation.provenance import ROOT

Batching = Literal["one", "ours", "fixed"]


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of all jobs: the variant to open and the threads it may use."""

    pack: str
    variant: str
    threads: int


class SpeedJob(Job, frozen=True):
    """Time calls on a file of inputs, and write the vectors to a file.

    `batching` is "one": repeated calls with all inputs in one batch without padding, for `seconds`; else one pass over
    inputs of mixed lengths: "ours" batches as `Embedder` does, "fixed" in order, 64 at a time, padded to the longest.
    """

    inputs: str
    vectors: str
    seconds: float
    batching: Batching


class OpenJob(Job, frozen=True):
    """Import, open and use an `Embedder`, with time and memory after each step."""


class PageJob(Job, frozen=True):
    """Open a pack that reads images; short and long texts, a page; beside them, int8 products alone."""

    seed: int


class AdapterJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Texts through merged and through switchable adapters of one task, in turns."""

    merged: str
    switchable: str
    task: str
    threads: int
    repetitions: int


class ScanJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Top-k by Hamming distance among random codes, by everything that can."""

    rows: int
    bits: int
    k: int
    repetitions: int
    seed: int


class StagesJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Two-stage search beside float32 brute force, among clustered vectors; `found` is the part of its hits wanted."""

    rows: int
    dimensions: int
    k: int
    found: float
    repetitions: int
    seed: int


class WorkerError(EmbedpackError):
    """A worker failed on a job, for this reason."""

    def __init__(self, job: msgspec.Struct, reason: str) -> None:
        super().__init__(f"a worker failed on {job}: {reason}")
        self.reason = reason


def in_fresh_process(
    job: msgspec.Struct,
    worker: str = "benchmarks.speed.worker",
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout: float | None = None,
) -> Any:
    """What a worker's module measures for a job, with some variables added to its environment.

    Args:
        job: passed as JSON.
        worker: module that `python -m` runs.
        environment: the variables.
        python: the interpreter.
        timeout: seconds after which it is given up.

    Raises:
        WorkerError: it failed; the reason is the last line that it wrote.
    """
    command = [python, "-m", worker, msgspec.json.encode(job).decode()]
    variables = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as cause:
        raise WorkerError(job, f"no answer within {timeout:.0f} seconds") from cause
    if done.returncode:
        raise WorkerError(job, (done.stderr.splitlines() or ["no message"])[-1])
    return msgspec.json.decode(done.stdout)
