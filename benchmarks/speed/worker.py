"""Measurements of a variant's speed in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.jobs import VariantJob
from benchmarks.peers.job import FIXED_BATCH, parts_of, read_inputs
from benchmarks.timing import memory, once, repeated
from embedpack.engine.encoder import TOKEN_BUDGET, Encoder
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.engine.session import GraphSession
from embedpack.inputs.batching import pad
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.graph_io import INPUT_IDS, SENTENCE_EMBEDDING
from embedpack.pack.variants import Variant

OUTPUT = [SENTENCE_EMBEDDING]

Batching = Literal["one", "parts", "ours", "fixed"]
Feeds = dict[str, npt.NDArray[np.int64]]
Ids = npt.NDArray[np.int64]


class SpeedJob(VariantJob, frozen=True, kw_only=True):
    """Time of calls on a file of inputs, and file to write the vectors to.

    `batching` is "one", calls repeated for some seconds with all inputs in one batch; "parts", the same in parts of the
    token budget of `Embedder`; "ours", one pass over inputs of mixed lengths, batched as `Embedder` does; or "fixed",
    one pass in their order, FIXED_BATCH at a time.
    """

    inputs: str
    vectors: str
    seconds: float
    batching: Batching


def measure(job: SpeedJob) -> dict[str, Any]:
    """Measure a batch or a pass."""
    return measure_shape(job) if job.batching in ("one", "parts") else measure_mixed(job)


def measure_shape(job: SpeedJob) -> dict[str, Any]:
    """Measure calls with one batch, or with its parts."""
    pack = read_pack(job.pack)
    session = open_graph(pack, pack.manifest.variants[job.variant], job.threads)
    parts = parts_of(read_inputs(job.inputs), TOKEN_BUDGET if job.batching == "parts" else None)
    feeds = [pad([np.array(row, np.int64) for row in part.ids], pack.manifest.text.pad_token_id) for part in parts]
    run = partial(_run_all, session, feeds)
    timing = repeated(run, job.seconds)
    np.save(job.vectors, run())
    return {**timing, "memory": memory()}


def measure_mixed(job: SpeedJob) -> dict[str, Any]:
    """Measure one pass; the time of padding counts, its tokens do not."""
    pack = read_pack(job.pack)
    variant = pack.manifest.variants[job.variant]
    texts, ids = read_inputs(job.inputs).texts, _ids(job.inputs)
    if job.batching == "ours":
        encoder = open_encoder(pack, variant, job.threads)
        computed = [batch.tokens for batch in encoder.batches(list(encoder.processor.items(texts)), EncodeOptions())]
        run = partial(_encode, encoder, texts)
        _encode(encoder, texts[:FIXED_BATCH])
    else:
        session = open_graph(pack, variant, job.threads)
        starts = range(0, len(ids), FIXED_BATCH)
        batches = [pad(ids[start : start + FIXED_BATCH], pack.manifest.text.pad_token_id) for start in starts]
        computed = [feeds[INPUT_IDS].size for feeds in batches]
        run = partial(_run_all, session, batches)
        session.run(OUTPUT, batches[0])
    vectors: list[npt.NDArray[Any]] = []
    timing = once(lambda: vectors.append(run()))
    np.save(job.vectors, vectors[0])
    counts = {"tokens": sum(map(len, ids)), "tokens_computed": sum(computed)}
    return {**counts, **timing, "memory": memory()}


def open_graph(pack: Pack, variant: Variant, threads: int) -> GraphSession:
    """Open the graph of a variant as the pack has it, not as `embedpack prepare` cached it."""
    return GraphSession(pack.path(variant.graph), threads)


def _encode(encoder: Encoder, texts: Sequence[str]) -> npt.NDArray[Any]:
    return encoder.run(list(encoder.processor.items(texts)), SENTENCE_EMBEDDING, EncodeOptions())


def _run_all(session: GraphSession, batches: Sequence[Feeds]) -> npt.NDArray[Any]:
    return np.concatenate([session.run(OUTPUT, feeds)[0] for feeds in batches])


def _ids(path: str) -> list[Ids]:
    """Token ids int64 [length] of each input."""
    return [np.array(row, np.int64) for row in read_inputs(path).ids]
