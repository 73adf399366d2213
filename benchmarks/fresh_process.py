"""Measurements in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from benchmarks.jobs import Job
from embedpack import EmbedpackError
from embedpack_export.evaluation.provenance import ROOT

AnyJob = TypeVar("AnyJob", bound=Job)


class WorkerError(EmbedpackError):
    """A function failed on a job in its process; `reason` is the last line that it printed."""

    def __init__(self, function: str, job: Job, reason: str) -> None:
        super().__init__(f"{function} failed on {job}: {reason}")
        self.reason = reason


def in_fresh_process(
    measure: Callable[[AnyJob], Any],
    job: AnyJob,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout: float | None = None,
) -> Any:
    """Call a function of a module, whose argument is named `job`, in a new process and return its result.

    `environment` has variables to add, `timeout` is in seconds.

    Raises:
        WorkerError: the process failed or timed out.
    """
    function = f"{measure.__module__}:{measure.__name__}"
    command = [python, "-m", Job.__module__, function, msgspec.json.encode(job).decode()]
    variables = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as cause:
        raise WorkerError(function, job, f"no answer within {timeout:.0f} seconds") from cause
    if done.returncode:
        raise WorkerError(function, job, (done.stderr.splitlines() or ["no message"])[-1])
    return msgspec.json.decode(done.stdout)
