"""llama.cpp through llama-cpp-python; its input is token ids, and it pools by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers import llama_gguf
from benchmarks.peers.job import PeerJob, PeerModel, PeerVectors, Rows, parts_of, read_inputs
from benchmarks.peers.pooled import unit

# Limits of a batch of texts of mixed lengths, which llama.cpp concatenates without padding.
MAX_TOKENS = 2048
MAX_SEQUENCES = 64

convert = llama_gguf.convert


def _encode(context: Any, dimensions: int, rows: Rows) -> PeerVectors:
    """Encode one batch.

    Raises:
        ValueError: llama.cpp refuses the batch.
    """
    memory = llama_cpp.llama_get_memory(context)
    if memory:
        llama_cpp.llama_memory_clear(memory, True)
    batch = llama_cpp.llama_batch_init(sum(map(len, rows)), 0, 1)
    try:
        _fill(batch, rows)
        status = llama_cpp.llama_decode(context, batch)
        if status:
            raise ValueError(f"llama.cpp refuses a batch of {len(rows)} texts: status {status}")
        vectors = [llama_cpp.llama_get_embeddings_seq(context, row) for row in range(len(rows))]
        return unit(np.stack([np.array(vector[:dimensions], np.float32) for vector in vectors]))
    finally:
        llama_cpp.llama_batch_free(batch)


def _fill(batch: Any, rows: Rows) -> None:
    number = 0
    for row, ids in enumerate(rows):
        for position, token in enumerate(ids):
            batch.token[number] = token
            batch.pos[number] = position
            batch.n_seq_id[number] = 1
            batch.seq_id[number][0] = row
            batch.logits[number] = 1
            number += 1
    batch.n_tokens = number


def _groups(rows: Rows) -> Iterator[Rows]:
    """Successive rows, as many as fit the limits."""
    group: list[Sequence[int]] = []
    for row in rows:
        if group and (len(group) == MAX_SEQUENCES or sum(map(len, group)) + len(row) > MAX_TOKENS):
            yield group
            group = []
        group.append(row)
    yield group


def open_model(job: PeerJob) -> PeerModel:
    """Load the quantized model, with a context for the largest call.

    Raises:
        ValueError: llama.cpp cannot load it.
    """
    llama_cpp.llama_backend_init()
    path = llama_gguf.path_of(job.source.models, job.format)
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise ValueError(f"llama.cpp cannot load {path.name}")
    rows = parts_of(read_inputs(job.inputs), None if job.mixed else job.budget)[0].ids
    parameters = llama_cpp.llama_context_default_params()
    tokens = MAX_TOKENS if job.mixed else sum(map(len, rows))
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = tokens
    parameters.n_seq_max = MAX_SEQUENCES if job.mixed else len(rows)
    parameters.kv_unified = True
    parameters.n_threads = parameters.n_threads_batch = job.threads
    parameters.embeddings = True
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise ValueError(f"llama.cpp cannot create a context of {tokens} tokens for {path.name}")
    encode = partial(_encode, context, llama_cpp.llama_model_n_embd(model))
    return PeerModel(
        lambda inputs: encode(inputs.ids),
        lambda inputs: np.concatenate([encode(rows) for rows in _groups(inputs.ids)]),
    )
