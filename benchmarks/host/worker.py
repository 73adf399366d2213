"""One measurement of a loaded pack on this host, in a fresh process: takes a job as JSON, prints JSON."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

MODULE = "benchmarks.host.worker"
TOKENS = 128
TEXTS = 16
IDLE_SECONDS = 10.0
CALLS = 5
KILOBYTE = 1024


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of all jobs: the variant to open and the threads it may use.

    This module imports embedpack only when a job has begun: the import is a part of what is timed.
    """

    pack: str
    variant: str
    threads: int


class ColdJob(Job, frozen=True):
    """From the start of the process to the first vector; memory after each step; `started` is when it was begun."""

    started: float


class SaveJob(Job, frozen=True):
    """Prepare the variant: seconds, disk, peak of memory."""


class ShareJob(Job, frozen=True):
    """Two processes with the same pack, and the memory of both while both are there; `other` is the first one."""

    other: int | None = None


class IdleJob(Job, frozen=True):
    """CPU time of a loaded pack that has worked and waits."""


class RunJob(Job, frozen=True):
    """Wall and CPU time of a text of 128 tokens, and of a call with several."""


class LimitedJob(Job, frozen=True):
    """Threads of the process where it may use one CPU only; `threads` is not passed on."""


class SoakJob(Job, frozen=True):
    """Memory while texts of mixed lengths are embedded, every so many of them."""

    texts: int
    every: int
    seed: int


def measure_cold(job: ColdJob) -> dict[str, Any]:
    """Seconds and memory of each step to the first vector."""
    begin = time.perf_counter()
    from embedpack import Embedder

    imported, after_import = time.perf_counter(), memory()
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    loaded, after_load, peak = time.perf_counter(), memory(), peak_memory()
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
        "peak_after_load": peak,
        "after_texts": memory(),
    }


def measure_save(job: SaveJob) -> dict[str, Any]:
    """Seconds, disk and memory of preparing."""
    from embedpack.engine.prepare import prepare_variant
    from embedpack.engine.prepared import cache_folder
    from embedpack.pack.folder import read_pack

    cache = cache_folder()
    assert cache is not None
    begin = time.perf_counter()
    done = prepare_variant(read_pack(job.pack), job.variant, job.threads, cache)
    return {
        "seconds": time.perf_counter() - begin,
        "disk_bytes": sum(graph.bytes for graph in done.graphs),
        "peak_rss": peak_memory(),
        "token_budget": done.token_budget,
        "tokens_per_second": {str(budget): speed for budget, speed in done.tokens_per_second.items()},
    }


def measure_share(job: ShareJob) -> dict[str, Any]:
    """Memory of both processes; the first starts the second, which looks at both."""
    from benchmarks.jobs import in_fresh_process

    model = opened(job)
    model.encode(text_of(TOKENS))
    if job.other is None:
        return in_fresh_process(msgspec.structs.replace(job, other=os.getpid()), worker=MODULE)
    return {"first": memory(job.other), "second": memory()}


def measure_idle(job: IdleJob) -> dict[str, Any]:
    """Share of one CPU that a waiting process takes."""
    model = opened(job)
    model.encode([text_of(TOKENS)] * 8)
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(IDLE_SECONDS)
    return {"cpu_share": (time.process_time() - cpu) / (time.perf_counter() - wall)}


def measure_run(job: RunJob) -> dict[str, Any]:
    """Median wall and mean CPU time of a call: with one text, and with several."""
    model = opened(job)
    one, several = (
        _timed(partial(model.encode, text_of(TOKENS))),
        _timed(partial(model.encode, [text_of(TOKENS)] * TEXTS)),
    )
    return {**one, **{f"texts_{name}": value for name, value in several.items()}}


def _timed(call: Callable[[], object]) -> dict[str, float]:
    call()
    walls, cpu = [], time.process_time()
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        walls.append(time.perf_counter() - begin)
    return {"wall_s": sorted(walls)[CALLS // 2], "cpu_s": (time.process_time() - cpu) / CALLS}


def measure_limited(job: LimitedJob) -> dict[str, Any]:
    """Threads that loading and working adds, with all CPUs but one taken away; tokenizers' own are not started."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from embedpack import Embedder

    before = count_threads()
    model = Embedder(job.pack, variant=job.variant)
    model.encode([text_of(TOKENS)] * 8)
    return {"threads_added": count_threads() - before}


def measure_soak(job: SoakJob) -> dict[str, Any]:
    """Memory at every step, the first before any text."""
    import numpy as np

    model = opened(job)
    rng = np.random.default_rng(job.seed)
    low, high = np.log(6), np.log(model.pack.manifest.text.max_tokens)
    # Above some hundred tokens a soak of a decoder would take days.
    lengths = np.minimum(np.exp(rng.uniform(low, high, job.texts)), 512).astype(int)
    steps = [{"texts": 0, **memory()}]
    begin = time.perf_counter()
    for start in range(0, job.texts, job.every):
        model.encode([text_of(length) for length in lengths[start : start + job.every]], truncate_dim=None)
        steps.append({"texts": min(start + job.every, job.texts), **memory()})
    return {"steps": steps, "seconds": time.perf_counter() - begin}


def opened(job: Job) -> Any:
    """The job's variant."""
    from embedpack import Embedder

    return Embedder(job.pack, variant=job.variant, threads=job.threads)


def text_of(tokens: int) -> str:
    """A text of about that many tokens in any vocabulary: one letter a token."""
    return " ".join("a" for _ in range(max(1, tokens - 2)))


def memory(process: int | str = "self") -> dict[str, int]:
    """Bytes of a process: resident, its share of pages that others map too, anonymous."""
    fields = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Pss", "Anonymous"):
            fields[name.lower()] = int(value.split()[0]) * KILOBYTE
    return fields


def peak_memory() -> int:
    """Most bytes that were resident at any time."""
    return _status("VmHWM") * KILOBYTE


def count_threads() -> int:
    """Threads of this process, as the system counts them."""
    return _status("Threads")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


MEASURES: dict[type[Job], Callable[[Any], dict[str, Any]]] = {
    ColdJob: measure_cold,
    SaveJob: measure_save,
    ShareJob: measure_share,
    IdleJob: measure_idle,
    RunJob: measure_run,
    LimitedJob: measure_limited,
    SoakJob: measure_soak,
}


def main() -> None:
    """Do the job on the command line."""
    kinds = ColdJob | SaveJob | ShareJob | IdleJob | RunJob | LimitedJob | SoakJob
    job = msgspec.json.decode(sys.argv[1], type=kinds)
    sys.stdout.write(msgspec.json.encode(MEASURES[type(job)](job)).decode())


if __name__ == "__main__":
    main()
