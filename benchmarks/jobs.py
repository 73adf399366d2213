"""What a worker process is asked to measure: one job a process, written as JSON on its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from benchmarks.provenance import ROOT
from embedpack import EmbedpackError


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of all jobs: the variant to open and the threads it may use."""

    pack: str
    variant: str
    threads: int


class ShapeJob(Job, frozen=True):
    """Repeated calls with one batch of a fixed shape: `rows` x `tokens`, no padding."""

    rows: int
    tokens: int
    seconds: float
    seed: int


class MixedJob(Job, frozen=True):
    """One pass over texts of mixed lengths; `ours` batches as `Embedder` does, else in order, 64 at a time."""

    ours: bool
    seed: int


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


def in_fresh_process(
    job: msgspec.Struct, worker: str = "benchmarks.worker", environment: Mapping[str, str] | None = None
) -> Any:
    """What a worker's module measures for a job, with some variables added to its environment.

    Raises:
        EmbedpackError: the worker failed; the message is the last line that it wrote.
    """
    command = [sys.executable, "-m", worker, msgspec.json.encode(job).decode()]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbedpackError(f"a worker failed on {job}: {(done.stderr.splitlines() or ['no message'])[-1]}")
    return msgspec.json.decode(done.stdout)
