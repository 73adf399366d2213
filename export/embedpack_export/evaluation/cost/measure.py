"""Cost of a variant: bytes of its files, peak memory of a process that uses it, tokens per second."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedpack.errors import EmbedpackError
from embedpack.pack.folder import Pack
from embedpack.progress import Progress
from embedpack_export.evaluation.scoring.encoding import inspect_inputs

REPETITIONS = 3
# Texts of a repetition: a few seconds of work for a small encoder.
MAX_TEXTS = 256
WORKER = "embedpack_export.evaluation.cost.worker"


class CostJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Job of a worker process: open a variant and encode texts as passages."""

    pack: str
    variant: str
    task: str
    threads: int | None
    texts: list[str]


class CostSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Result of a worker process: seconds for all texts, and its peak resident memory."""

    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Cost:
    """Cost of a variant."""

    file_bytes: int
    peak_rss_bytes: int  # peak resident memory of a process, mapped files included
    tokens_per_s: float  # median speed


def measure_costs(
    pack: Pack, task: str, variants: Sequence[str], texts: Sequence[str], threads: int | None
) -> dict[str, Cost]:
    """Measure variants in turns, each in a new process, so that changes of the host's load affect all of them.

    Raises:
        EmbedpackError: a process failed.
    """
    sample = list(texts[:MAX_TEXTS])
    tokens = sum(info.tokens for info in inspect_inputs(pack, task, sample, "document"))
    samples: dict[str, list[CostSample]] = {variant: [] for variant in variants}
    with Progress("speed and memory", REPETITIONS * len(variants)) as progress:
        for _ in range(REPETITIONS):
            for variant in variants:
                job = CostJob(pack=str(pack.folder), variant=variant, task=task, threads=threads, texts=sample)
                samples[variant].append(_in_fresh_process(job))
                progress.advance(1)
    return {
        variant: Cost(
            file_bytes=pack.manifest.variant_bytes(variant),
            peak_rss_bytes=max(measurement.peak_rss_bytes for measurement in measured),
            tokens_per_s=tokens / statistics.median(measurement.seconds for measurement in measured),
        )
        for variant, measured in samples.items()
    }


def _in_fresh_process(job: CostJob) -> CostSample:
    """Run a job in a new process. A file passes it, as texts are too long for a command line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_bytes(msgspec.json.encode(job))
        completed = subprocess.run([sys.executable, "-m", WORKER, path], capture_output=True, text=True, check=False)
    if completed.returncode:
        last = (completed.stderr.splitlines() or ["no message"])[-1]
        raise EmbedpackError(f"measuring {job.variant} failed in a separate process: {last}")
    return msgspec.json.decode(completed.stdout, type=CostSample)
