"""Conversions and measurements in a peer's environment."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.job import ConvertJob, PeerInputs, PeerJob, PeerModel, PeerVectors, parts_of, read_inputs
from benchmarks.timing import memory, once, repeated

WARM_UP_TEXTS = 32


def convert(job: ConvertJob) -> dict[str, float]:
    """Convert the model."""
    Path(job.source.models).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    importlib.import_module(f"benchmarks.peers.{job.module}").convert(job)
    return {"seconds": round(time.perf_counter() - start, 1)}


def measure(job: PeerJob) -> dict[str, Any]:
    """Load the peer, time it, write its vectors."""
    start = time.perf_counter()
    model: PeerModel = importlib.import_module(f"benchmarks.peers.{job.module}").open_model(job)
    loaded = time.perf_counter() - start
    inputs = read_inputs(job.inputs)
    if job.mixed:
        model.corpus(PeerInputs(texts=inputs.texts[:WARM_UP_TEXTS], ids=inputs.ids[:WARM_UP_TEXTS]))
        passes: list[PeerVectors] = []
        timing = once(lambda: passes.append(model.corpus(inputs)))
        vectors = passes[0]
    else:
        run = partial(_in_parts, model, parts_of(inputs, job.budget))
        timing = repeated(run, job.seconds)
        vectors = run()
    np.save(job.vectors, vectors)
    return {**timing, "load_s": loaded, "memory": memory()}


def _in_parts(model: PeerModel, parts: Sequence[PeerInputs]) -> PeerVectors:
    return np.concatenate([model.batch(part) for part in parts])
