"""Measurements of a program on a GPU, in a fresh process: embedpack, torch and sentence-transformers on one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.jobs import Job
from benchmarks.peers.job import PeerInputs, read_inputs
from benchmarks.timing import repeated
from embedpack.engine.encoder import Encoder
from embedpack.engine.loading import PackGraph, open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.host.gpu import free_memory
from embedpack.inputs.batching import pad
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING

Program = Literal["embedpack fp16", "embedpack int4", "torch fp16", "torch bf16", "sentence-transformers fp16"]
Vectors = npt.NDArray[np.float32]
Call: TypeAlias = Callable[[], Vectors]

# Rows of the square matrices whose product gives the rate of the card; small ones on a CPU.
RATE_ROWS = {"cuda": 8192, "cpu": 256}
BATCH_TEXTS = 64


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A workload: file of its inputs, file to write the vectors to, and whether it is given as texts or token ids."""

    path: str
    vectors: str
    as_texts: bool


class GpuJob(Job, frozen=True, kw_only=True):
    """Calls of a program with each of some workloads, repeated for some seconds, on a device.

    `pack` is an export of `checkpoint` without an adapter, with mean pooling. `variant` is for embedpack alone.
    """

    program: Program
    device: Literal["cpu", "cuda"]
    pack: str
    variant: str
    checkpoint: str
    inputs: list[Input]
    seconds: float


class RateJob(Job, frozen=True, kw_only=True):
    """Rate of a large product of float16 matrices on a device, repeated for some seconds."""

    device: Literal["cpu", "cuda"]
    seconds: float


def measure(job: GpuJob) -> list[dict[str, Any]]:
    """Times of a call with each workload, and the GPU's memory in use after them; the vectors are written."""
    openers = {"embedpack fp16": _embedpack, "embedpack int4": _embedpack}
    openers["sentence-transformers fp16"] = _sentence_transformers
    free = free_memory()
    call = openers.get(job.program, _torch)(job)
    results = []
    for given in job.inputs:
        run = partial(call, read_inputs(given.path), given.as_texts)
        np.save(given.vectors, run())
        times = dict(repeated(run, job.seconds))
        results.append(times | {"gpu_bytes": None if free is None else free - (free_memory() or 0)})
    return results


def measure_rate(job: RateJob) -> dict[str, Any]:
    """Name of the device, and its operations per second in a product of float16 matrices."""
    import torch

    rows = RATE_ROWS[job.device]
    a, b = (torch.randn(rows, rows, device=job.device).half() for _ in range(2))
    synchronize = torch.cuda.synchronize if job.device == "cuda" else time.perf_counter

    def product() -> None:
        torch.matmul(a, b)
        synchronize()

    name = torch.cuda.get_device_name(0) if job.device == "cuda" else "CPU"
    return {"name": name, "operations_per_s": 2 * rows**3 / repeated(product, job.seconds)["wall_s"]}


def _embedpack(job: GpuJob) -> Callable[[PeerInputs, bool], Vectors]:
    """Texts through the encoder with its batches; token ids through the graph."""
    pack = read_pack(job.pack)
    variant = pack.manifest.variants[job.variant]
    encoder = open_encoder(pack, variant, 1, None, job.device)
    session = PackGraph.of(pack, variant).session(1, job.device)

    def call(inputs: PeerInputs, as_texts: bool) -> Vectors:
        if as_texts:
            return _encode(encoder, inputs.texts)
        feeds = pad([np.array(row, np.int64) for row in inputs.ids], pack.manifest.text.pad_token_id)
        return session.run([SENTENCE_EMBEDDING], feeds)[0]

    return call


def _encode(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    return encoder.run(list(encoder.processor.items(texts)), SENTENCE_EMBEDDING, EncodeOptions())


def _torch(job: GpuJob) -> Callable[[PeerInputs, bool], Vectors]:
    """Token ids through transformers' model with SDPA; mean pooling in float32."""
    import torch
    from transformers import AutoModel

    dtype = torch.float16 if job.program == "torch fp16" else torch.bfloat16
    auto_model: Any = AutoModel  # transformers leaves this function untyped
    model = auto_model.from_pretrained(job.checkpoint, dtype=dtype, attn_implementation="sdpa").to(job.device).eval()

    def call(inputs: PeerInputs, as_texts: bool) -> Vectors:
        assert not as_texts
        feeds = pad([np.array(row, np.int64) for row in inputs.ids], 0)
        ids, mask = (torch.from_numpy(values).to(job.device) for values in feeds.values())
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask[..., None].float()
            pooled = (states * weights).sum(1) / weights.sum(1)
            return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()

    return call


def _sentence_transformers(job: GpuJob) -> Callable[[PeerInputs, bool], Vectors]:
    """Texts through `encode`, as its users call it."""
    import torch
    from sentence_transformers import SentenceTransformer

    options = {"dtype": torch.float16, "attn_implementation": "sdpa"}
    model = SentenceTransformer(job.checkpoint, device=job.device, model_kwargs=options)

    def call(inputs: PeerInputs, as_texts: bool) -> Vectors:
        assert as_texts
        return np.asarray(
            model.encode(inputs.texts, batch_size=BATCH_TEXTS, normalize_embeddings=True, show_progress_bar=False),
            np.float32,
        )

    return call
