"""One step in a peer's environment: takes a job as JSON, prints JSON."""

from __future__ import annotations

import importlib
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.peers.job import Inputs, Model, PeerJob, PrepareJob, read_inputs
from benchmarks.timing import memory, once, repeated

# Enough of a corpus to be warm.
WARM = 32


def prepare(job: PrepareJob) -> dict[str, Any]:
    """Convert the model; what the peer returns goes into the results."""
    Path(job.source.models).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    importlib.import_module(f"benchmarks.peers.{job.module}").prepare(job)
    return {"seconds": round(time.perf_counter() - start, 1)}


def measure(job: PeerJob) -> dict[str, Any]:
    """Load the peer, time it, keep its vectors."""
    start = time.perf_counter()
    model: Model = importlib.import_module(f"benchmarks.peers.{job.module}").open_model(job)
    loaded = time.perf_counter() - start
    inputs = read_inputs(job.inputs)
    if job.mixed:
        model.corpus(Inputs(texts=inputs.texts[:WARM], ids=inputs.ids[:WARM]))
        kept: list[Any] = []
        found = once(lambda: kept.append(model.corpus(inputs)))
        vectors = kept[0]
    else:
        found = repeated(partial(model.batch, inputs), job.seconds)
        vectors = model.batch(inputs)
    np.save(job.vectors, vectors)
    return {**found, "load_s": loaded, "memory": memory()}


def main() -> None:
    """Do the job on the command line; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.argv[1], type=PrepareJob | PeerJob)
    found = prepare(job) if isinstance(job, PrepareJob) else measure(job)
    answers.write(msgspec.json.encode(found).decode())
    answers.close()


if __name__ == "__main__":
    main()
