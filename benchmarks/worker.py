"""One measurement in a fresh process: takes a job as JSON, prints JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.jobs import MixedJob, OpenJob, ShapeJob
from embedpack.batching import pad, token_budget_batches
from embedpack.embedder import Embedder
from embedpack.pack import Pack, Variant, read_pack
from embedpack.saturation import products_saturate
from embedpack.session import GraphSession
from embedpack.text_encoder import TOKEN_BUDGET

OUTPUT = ["sentence_embedding"]
MIN_CALLS = 3
MIXED_TEXTS = 512
MIXED_TOKENS = (6, 128)
# The usual batch of programs that batch by count.
FIXED_BATCH = 64
LONGEST_TEXT = 128

Feeds = dict[str, npt.NDArray[np.int64]]
Ids = npt.NDArray[np.int64]


def measure_shape(job: ShapeJob) -> dict[str, Any]:
    """Median wall time and mean CPU time of a call."""
    pack = read_pack(job.pack)
    session, graph = open_graph(pack, pack.manifest.variants[job.variant], job.threads)
    rng = np.random.default_rng(job.seed)
    feeds = pad(random_texts(pack, rng, [job.tokens] * job.rows), pack.manifest.text.pad_token_id)
    session.run(OUTPUT, feeds)
    walls: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while len(walls) < MIN_CALLS or time.perf_counter() - begin < job.seconds:
        start = time.perf_counter()
        session.run(OUTPUT, feeds)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    return {"graph": graph, "calls": len(walls), "wall_s": float(np.median(walls)), "cpu_s": cpu / len(walls)}


def measure_mixed(job: MixedJob) -> dict[str, Any]:
    """Wall and CPU time of one pass; padding counts as time, not as tokens."""
    pack = read_pack(job.pack)
    session, graph = open_graph(pack, pack.manifest.variants[job.variant], job.threads)
    rng = np.random.default_rng(job.seed)
    low, high = np.log(MIXED_TOKENS)
    lengths = np.rint(np.exp(rng.uniform(low, high, MIXED_TEXTS))).astype(int).tolist()
    texts = random_texts(pack, rng, lengths)
    batches = list(mixed_batches(texts, pack.manifest.text.pad_token_id, ours=job.ours))
    session.run(OUTPUT, batches[0])
    start, cpu = time.perf_counter(), time.process_time()
    for feeds in batches:
        session.run(OUTPUT, feeds)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    computed = sum(feeds["input_ids"].size for feeds in batches)
    return {"graph": graph, "tokens": sum(lengths), "tokens_computed": computed, "wall_s": wall, "cpu_s": cpu}


def measure_open(job: OpenJob) -> dict[str, Any]:
    """Seconds and memory of opening a variant, and memory once it has worked."""
    after_import = memory()
    start = time.perf_counter()
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    seconds = time.perf_counter() - start
    after_load = memory()
    model.encode(["word " * count for count in range(1, LONGEST_TEXT + 1)])
    return {"load_s": seconds, "after_import": after_import, "after_load": after_load, "after_texts": memory()}


def open_graph(pack: Pack, variant: Variant, threads: int) -> tuple[GraphSession, str]:
    """The graph that `Embedder` takes on this CPU, and its name."""
    twin = variant.graph_without_vnni
    graph = twin if twin is not None and products_saturate() else variant.graph
    return GraphSession(pack.path(graph), threads), graph


def random_texts(pack: Pack, rng: np.random.Generator, lengths: Sequence[int]) -> list[Ids]:
    """Token ids int64 [length] of no real texts; the padding is not among them."""
    text = pack.manifest.text
    drawn = [rng.integers(0, text.vocabulary - 1, length) for length in lengths]
    return [np.where(ids >= text.pad_token_id, ids + 1, ids) for ids in drawn]


def mixed_batches(texts: list[Ids], pad_token_id: int, *, ours: bool) -> Iterator[Feeds]:
    """The texts as inputs of a graph, batched in one of two ways."""
    if ours:
        for rows in token_budget_batches([len(text) for text in texts], TOKEN_BUDGET):
            yield pad([texts[row] for row in rows], pad_token_id)
        return
    for start in range(0, len(texts), FIXED_BATCH):
        yield pad(texts[start : start + FIXED_BATCH], pad_token_id)


def memory() -> dict[str, int]:
    """Resident and anonymous bytes of this process; mapped files are resident, but not anonymous."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Anonymous"):
            fields[name.lower()] = int(value.split()[0]) * 1024
    return fields


def main() -> None:
    """Do the job on the command line."""
    job = msgspec.json.decode(sys.argv[1], type=ShapeJob | MixedJob | OpenJob)
    if isinstance(job, ShapeJob):
        found = measure_shape(job)
    elif isinstance(job, MixedJob):
        found = measure_mixed(job)
    else:
        found = measure_open(job)
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
