"""What a variant costs: its files, the memory of a process that uses it, and tokens per second."""

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
from embedpack_export.evaluation.scoring.encoding import look_at

REPETITIONS = 3
# Texts of a repetition: a few seconds of work for a small encoder.
TEXTS = 256
WORKER = "embedpack_export.evaluation.cost.worker"


class CostJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker process is asked to do: open a variant and embed texts as passages."""

    pack: str
    variant: str
    task: str
    threads: int | None
    texts: list[str]


class CostFound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it found: seconds for all texts, and the most memory that it ever held."""

    seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Cost:
    """Of a variant: bytes of its files, peak resident memory (mapped files included), and median speed on texts."""

    file_bytes: int
    peak_rss_bytes: int
    tokens_per_s: float


def measure_costs(
    pack: Pack, task: str, variants: Sequence[str], texts: Sequence[str], threads: int | None
) -> dict[str, Cost]:
    """Measure variants in turns, each time in a new process, so that a slow minute hits all of them.

    Raises:
        EmbedpackError: a process failed.
    """
    sample = list(texts[:TEXTS])
    tokens = sum(item.tokens for item in look_at(pack, task, sample, "passage"))
    found: dict[str, list[CostFound]] = {variant: [] for variant in variants}
    with Progress("speed and memory", REPETITIONS * len(variants)) as progress:
        for _ in range(REPETITIONS):
            for variant in variants:
                job = CostJob(pack=str(pack.folder), variant=variant, task=task, threads=threads, texts=sample)
                found[variant].append(_in_fresh_process(job))
                progress.advance(1)
    return {
        variant: Cost(
            file_bytes=pack.manifest.variant_bytes(variant),
            peak_rss_bytes=max(item.peak_rss_bytes for item in items),
            tokens_per_s=tokens / statistics.median(item.seconds for item in items),
        )
        for variant, items in found.items()
    }


def _in_fresh_process(job: CostJob) -> CostFound:
    """A file takes the job there: a command line has no room for texts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_bytes(msgspec.json.encode(job))
        done = subprocess.run([sys.executable, "-m", WORKER, path], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.splitlines() or ["no message"])[-1]
        raise EmbedpackError(f"measuring {job.variant} failed in a process of its own: {last}")
    return msgspec.json.decode(done.stdout, type=CostFound)
