"""Measurements of a pack on this host in a fresh process: cold start, memory, threads, idle CPU.

embedpack is imported by the functions, since its import is a part of the time that is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.jobs import Job, VariantJob, do_job
from benchmarks.timing import Timing, count_threads, memory, repeated

if TYPE_CHECKING:
    from embedpack import Embedder

WORKER = "benchmarks.host.worker"
TOKENS = 128
TEXTS = 16
IDLE_TEXTS = 8
IDLE_SECONDS = 10.0
CALLS = 5
MIN_SOAK_TOKENS, MAX_SOAK_TOKENS = 6, 512


class ColdJob(VariantJob, frozen=True):
    """Time from the start of the process to the first vector, and memory after each step.

    Attributes:
        started: `time.time()` just before the process was started.
    """

    started: float


class PrepareJob(VariantJob, frozen=True):
    """Time, disk space and peak memory of preparing the variant."""


class ShareJob(VariantJob, frozen=True):
    """Memory of two processes that have the same pack open.

    Attributes:
        other: process id of the first one; None in the first one, which starts the second.
    """

    other: int | None = None


class IdleJob(VariantJob, frozen=True):
    """CPU time of a loaded pack between calls."""


class RunJob(VariantJob, frozen=True):
    """Wall and CPU time of a call with one text of TOKENS tokens, and of a call with TEXTS of them."""


class LimitedJob(VariantJob, frozen=True):
    """Number of threads of a process that is limited to one CPU; `threads` is not used."""


class SoakJob(VariantJob, frozen=True):
    """Memory while texts of mixed lengths are embedded.

    Attributes:
        texts: number of texts.
        every: texts of a call; memory is read after each call.
        seed: seed of the lengths.
    """

    texts: int
    every: int
    seed: int


def measure_cold(job: ColdJob) -> dict[str, Any]:
    """Measure seconds and memory of each step to the first vector."""
    begin = time.perf_counter()
    from embedpack import Embedder

    imported, after_import = time.perf_counter(), memory()
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    loaded, after_load = time.perf_counter(), memory()
    model.encode("a text")
    first, now = time.perf_counter(), time.time()
    model.encode(text_of(TOKENS))
    return {
        "start_s": now - job.started,
        "import_s": imported - begin,
        "load_s": loaded - imported,
        "first_s": first - loaded,
        "after_import": after_import,
        "after_load": after_load,
        "peak_after_load": after_load["peak"],
        "after_texts": memory(),
    }


def measure_prepare(job: PrepareJob) -> dict[str, Any]:
    """Measure seconds, disk space and memory of preparing."""
    from embedpack.engine.prepare import prepare_variant
    from embedpack.engine.prepared import cache_folder
    from embedpack.pack.folder import read_pack

    cache = cache_folder()
    assert cache is not None
    begin = time.perf_counter()
    prepared = prepare_variant(read_pack(job.pack), job.variant, job.threads, cache)
    return {
        "seconds": time.perf_counter() - begin,
        "disk_bytes": sum(graph.bytes for graph in prepared.graphs),
        "peak_rss": memory()["peak"],
        "token_budget": prepared.token_budget,
        "tokens_per_second": {str(budget): speed for budget, speed in prepared.tokens_per_second.items()},
    }


def measure_share(job: ShareJob) -> dict[str, Any]:
    """Measure both processes from the second one, which the first one starts."""
    from benchmarks.fresh_process import in_fresh_process

    model = open_model(job)
    model.encode(text_of(TOKENS))
    if job.other is None:
        shared: dict[str, Any] = in_fresh_process(msgspec.structs.replace(job, other=os.getpid()), WORKER)
        return shared
    return {"first": memory(job.other), "second": memory()}


def measure_idle(job: IdleJob) -> dict[str, float]:
    """Measure the share of one CPU that a waiting process uses."""
    model = open_model(job)
    model.encode([text_of(TOKENS)] * IDLE_TEXTS)
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(IDLE_SECONDS)
    return {"cpu_share": (time.process_time() - cpu) / (time.perf_counter() - wall)}


def measure_run(job: RunJob) -> Timing:
    """Measure a call with one text, and with several (keys with "texts_")."""
    model = open_model(job)
    one = repeated(partial(model.encode, text_of(TOKENS)), min_calls=CALLS)
    several = repeated(partial(model.encode, [text_of(TOKENS)] * TEXTS), min_calls=CALLS)
    keys = ("wall_s", "cpu_s")
    return {key: one[key] for key in keys} | {f"texts_{key}": several[key] for key in keys}


def measure_limited(job: LimitedJob) -> dict[str, int]:
    """Count the threads that loading and encoding add on one CPU; those of tokenizers are switched off."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from embedpack import Embedder

    before = count_threads()
    model = Embedder(job.pack, variant=job.variant)
    model.encode([text_of(TOKENS)] * IDLE_TEXTS)
    return {"threads_added": count_threads() - before}


def measure_soak(job: SoakJob) -> dict[str, Any]:
    """Measure memory before the first text and after each call."""
    import numpy as np

    model = open_model(job)
    rng = np.random.default_rng(job.seed)
    low, high = np.log(MIN_SOAK_TOKENS), np.log(model.pack.manifest.text.max_tokens)
    # Longer texts would make a decoder's soak take days.
    lengths = np.minimum(np.exp(rng.uniform(low, high, job.texts)), MAX_SOAK_TOKENS).astype(int)
    steps = [{"texts": 0, **memory()}]
    begin = time.perf_counter()
    for start in range(0, job.texts, job.every):
        model.encode([text_of(length) for length in lengths[start : start + job.every]], truncate_dim=None)
        steps.append({"texts": min(start + job.every, job.texts), **memory()})
    return {"steps": steps, "seconds": time.perf_counter() - begin}


def open_model(job: VariantJob) -> Embedder:
    """Open the job's variant."""
    from embedpack import Embedder

    return Embedder(job.pack, variant=job.variant, threads=job.threads)


def text_of(tokens: int) -> str:
    """Text of about that many tokens in any vocabulary: one letter a token."""
    return " ".join("a" for _ in range(max(1, tokens - 2)))


MEASURES: Mapping[type[Job], Callable[[Any], object]] = {
    ColdJob: measure_cold,
    PrepareJob: measure_prepare,
    ShareJob: measure_share,
    IdleJob: measure_idle,
    RunJob: measure_run,
    LimitedJob: measure_limited,
    SoakJob: measure_soak,
}


if __name__ == "__main__":
    do_job(MEASURES)
