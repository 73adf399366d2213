"""Measurements of a pack on this host in a fresh process: cold start, memory, threads, idle CPU.

embedpack is imported by the functions, since its import is a part of the time that is measured.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.jobs import VariantJob
from benchmarks.timing import Timing, count_threads, memory, once, repeated, reset_peak

if TYPE_CHECKING:
    from embedpack import Embedder

TOKENS = 128
TEXTS = 16
IDLE_TEXTS = 8
IDLE_SECONDS = 10.0
CALLS = 5
MIN_SOAK_TOKENS, MAX_SOAK_TOKENS = 6, 512


class ColdJob(VariantJob, frozen=True):
    """A variant, and `time.time()` just before the process was started."""

    started: float


class ShareJob(VariantJob, frozen=True):
    """A variant to open in two processes; `other` is the id of the first one, None in that one."""

    other: int | None = None


class SoakJob(VariantJob, frozen=True):
    """A variant, the number of texts to embed, `every` of them a call, and the seed of their lengths."""

    texts: int
    every: int
    seed: int


class LongTextJob(VariantJob, frozen=True):
    """A variant, and the length of the text to embed."""

    tokens: int


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


def measure_prepare(job: VariantJob) -> dict[str, Any]:
    """Measure seconds, disk space and peak memory of preparing."""
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
        shared: dict[str, Any] = in_fresh_process(measure_share, msgspec.structs.replace(job, other=os.getpid()))
        return shared
    return {"first": memory(job.other), "second": memory()}


def measure_long_text(job: LongTextJob) -> dict[str, float]:
    """Measure one text: memory above that of the loaded session, which has embedded a short one, and time."""
    from embedpack.engine.loading import PackGraph
    from embedpack.engine.memory_plan import batch_bytes
    from embedpack.pack.folder import read_pack

    model, text = open_model(job), text_of(job.tokens)
    model.encode("a text")
    pack = read_pack(job.pack)
    weights = PackGraph.of(pack, pack.manifest.variants[job.variant]).weight_sizes
    reset_peak()
    loaded = memory()["rss"]
    first = once(lambda: model.encode(text, on_long="error"))
    return {
        "loaded_bytes": loaded,
        "extra_bytes": memory()["peak"] - loaded,
        "planned_bytes": batch_bytes(weights, 1, job.tokens),
        "wall_s": first["wall_s"],
        "cpu_s": first["cpu_s"],
    }


def measure_idle(job: VariantJob) -> dict[str, float]:
    """Measure the share of one CPU that a waiting process uses."""
    model = open_model(job)
    model.encode([text_of(TOKENS)] * IDLE_TEXTS)
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(IDLE_SECONDS)
    return {"cpu_share": (time.process_time() - cpu) / (time.perf_counter() - wall)}


def measure_run(job: VariantJob) -> Timing:
    """Measure a call with one text of TOKENS tokens, and with TEXTS of them (keys with "texts_")."""
    model = open_model(job)
    one = repeated(partial(model.encode, text_of(TOKENS)), min_calls=CALLS)
    several = repeated(partial(model.encode, [text_of(TOKENS)] * TEXTS), min_calls=CALLS)
    keys = ("wall_s", "cpu_s")
    return {key: one[key] for key in keys} | {f"texts_{key}": several[key] for key in keys}


def measure_limited(job: VariantJob) -> dict[str, int]:
    """Count the threads that loading and encoding add on one CPU; `threads` is not used, tokenizers add none."""
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
