"""Measurements of search in a fresh process, whose libraries use one thread."""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.jobs import Job
from benchmarks.timing import memory
from embedpack import Embeddings, Hits, search
from embedpack.scoring import hamming
from embedpack.scoring.hamming import Kernel, with_numkong, with_numpy
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Precision, code_width, quantize, unit
from embedpack_export.stages.output_codes import int8_scale

# Queries of a call.
BATCHES = (1, 16)
# Calls of a repetition with the smaller batch, each with other queries; their mean counts.
CALLS = 5
OVERSAMPLES = (1, 2, 5, 10, 20, 50, 100)
# Queries that recall is measured on.
RECALL_QUERIES = 256
# The mixture: members of a cluster; their distance from its centre, relative to that of the centre from the origin; the
# exponent of the variances of the principal axes.
MEMBERS, SPREAD, SLOPE = 100, 0.8, 0.8
# Documents drawn at a time.
DRAWN_DOCUMENTS = 1 << 15
BRUTE_FORCE = "float32 brute force"

Int64 = npt.NDArray[np.int64]
# A search for the nearest documents of some rows of the queries.
Method = Callable[[slice], object]
Seconds = dict[str, dict[int, dict[str, list[float]]]]


class ScanJob(Job, frozen=True, kw_only=True):
    """Top k by Hamming distance among random codes, with every kernel and faiss."""

    rows: int
    bits: int
    k: int
    repetitions: int
    seed: int


class StagesJob(Job, frozen=True, kw_only=True):
    """Two-stage search compared with float32 brute force, among clustered vectors.

    `recall` is the share of brute force's hits that the timed oversample reaches, if the codes can.
    """

    rows: int
    dimensions: int
    k: int
    recall: float
    repetitions: int
    seed: int


@dataclass(frozen=True)
class Corpus:
    """Queries and documents of the two-stage search: float32 [n, dimensions], bits, and by precision of rescoring."""

    queries: Float32
    vectors: Float32
    bits: Embeddings
    rescores: Mapping[str, Embeddings]

    @classmethod
    def draw(cls, job: StagesJob) -> Corpus:
        """Draw vectors of a mixture, and quantize the documents."""
        draw = _mixture(np.random.default_rng(job.seed), job.rows, job.dimensions)
        queries = draw(RECALL_QUERIES)
        vectors = np.empty((job.rows, job.dimensions), np.float32)
        float16 = np.empty((job.rows, job.dimensions), np.float16)
        int8 = np.empty((job.rows, job.dimensions), np.int8)
        bits = np.empty((job.rows, code_width("binary", job.dimensions)), np.uint8)
        scale = int8_scale(queries)
        for start in range(0, job.rows, DRAWN_DOCUMENTS):
            rows = slice(start, min(start + DRAWN_DOCUMENTS, job.rows))
            vectors[rows] = draw(rows.stop - start)
            float16[rows] = quantize(vectors[rows], "float16", None)
            int8[rows] = quantize(vectors[rows], "int8", scale)
            bits[rows] = quantize(vectors[rows], "binary", _signs(job.dimensions))
        rescores = {
            "int8": _embeddings(int8, "int8", job.dimensions),
            "float16": _embeddings(float16, "float16", job.dimensions),
            "float32": _embeddings(vectors, "float32", job.dimensions),
        }
        return cls(queries, vectors, _embeddings(bits, "binary", job.dimensions), rescores)


def measure_scan(job: ScanJob) -> dict[str, Any]:
    """Measure seconds of a call by every kernel and by faiss.

    Raises:
        AssertionError: faiss returns other distances.
    """
    rng = np.random.default_rng(job.seed)
    codes = rng.integers(0, 256, (job.rows, job.bits // 8), dtype=np.uint8)
    query_codes = rng.integers(0, 256, (max(BATCHES) * CALLS, job.bits // 8), dtype=np.uint8)
    documents, queries = _embeddings(codes, "binary", job.bits), _embeddings(query_codes, "binary", job.bits)
    methods: dict[str, Method] = {
        name: _with_kernel(kernel, lambda rows: search(queries[rows], documents, job.k))
        for name, kernel in kernels().items()
    }
    expected = np.rint((1 - search(queries, documents, job.k).scores) * (job.bits / 2))
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        index = faiss.IndexBinaryFlat(job.bits)
        index.add(codes)
        methods["faiss"] = lambda rows: index.search(query_codes[rows], job.k)
        # Among equal distances faiss may choose other documents, so distances are compared.
        if not np.array_equal(np.sort(index.search(query_codes, job.k)[0], axis=1), expected):
            raise AssertionError("faiss finds other distances")
    return {"seconds": _seconds(methods, job.repetitions), "peak_bytes": memory()["peak"]}


def measure_stages(job: StagesJob) -> dict[str, Any]:
    """Measure the recall of each oversample, then seconds of a call at the first one that reaches the job's recall."""
    corpus = Corpus.draw(job)
    queries = _embeddings(corpus.queries, "float32", job.dimensions)
    exact = _exact(corpus, job.k)
    methods: dict[str, Method] = {}
    recalls: dict[str, dict[int, float]] = {}
    chosen: dict[str, int] = {}
    for name, rescore in corpus.rescores.items():
        stages = partial(_two_stages, queries, corpus.bits, job.k, rescore)
        every = slice(None)
        recalls[name] = {oversample: _recall(exact, stages(oversample, every).indices) for oversample in OVERSAMPLES}
        # Rescoring with int8 has a highest recall, which may be lower than the wanted one.
        wanted = min(job.recall, max(recalls[name].values()))
        chosen[name] = next(oversample for oversample, recall in recalls[name].items() if recall >= wanted)
        two_stages = partial(stages, chosen[name])
        methods |= {f"{label}, {name}": _with_kernel(kernel, two_stages) for label, kernel in kernels().items()}
    methods[BRUTE_FORCE] = lambda rows: brute_force(corpus.queries[rows], corpus.vectors, job.k)
    return {
        "recall": recalls,
        "oversample": chosen,
        "seconds": _seconds(methods, job.repetitions),
        "peak_bytes": memory()["peak"],
    }


def _exact(corpus: Corpus, k: int) -> Int64:
    batch = max(BATCHES)
    starts = range(0, len(corpus.queries), batch)
    return np.concatenate([brute_force(corpus.queries[start : start + batch], corpus.vectors, k) for start in starts])


def _two_stages(
    queries: Embeddings, documents: Embeddings, k: int, rescore: Embeddings, oversample: int, rows: slice
) -> Hits:
    return search(queries[rows], documents, k, rescore=rescore, oversample=oversample)


def kernels() -> Mapping[str, Kernel]:
    """Installed kernels of Hamming distances."""
    installed = importlib.util.find_spec("numkong") is not None
    return {"numpy": with_numpy} | ({"numkong": with_numkong} if installed else {})


def brute_force(queries: Float32, documents: Float32, k: int) -> Int64:
    """Rows of the k highest dot products, int64 [queries, k]: one matrix product, one partition."""
    # One query as a vector, since numpy has a faster kernel for that.
    scores = (documents @ queries[0])[None] if len(queries) == 1 else queries @ documents.T
    best = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)


def _mixture(rng: np.random.Generator, rows: int, dimensions: int) -> Callable[[int], Float32]:
    """Function that draws unit vectors, float32 [n, dimensions], of a mixture of Gaussians with random axes."""
    deviations = np.arange(1, dimensions + 1, dtype=np.float32) ** np.float32(-SLOPE / 2)
    rotation = np.linalg.qr(rng.standard_normal((dimensions, dimensions), np.float32))[0]
    axes = deviations[:, None] * rotation
    centres = rng.standard_normal((max(1, rows // MEMBERS), dimensions), np.float32) @ axes

    def draw(count: int) -> Float32:
        noise = rng.standard_normal((count, dimensions), np.float32) @ axes
        return unit(centres[rng.integers(0, len(centres), count)] + np.float32(SPREAD) * noise)

    return draw


def _embeddings(codes: npt.NDArray[Any], precision: Precision, dimensions: int) -> Embeddings:
    codebook = _signs(dimensions) if precision == "binary" else None
    return Embeddings(codes, precision, dimensions, "benchmark", codebook=codebook)


@functools.cache
def _signs(dimensions: int) -> Codebook:
    """Codebook whose bits are the signs."""
    return Codebook.gaussian(np.zeros(dimensions, np.float32), dimensions**-0.5)


def _with_kernel(kernel: Kernel, method: Method) -> Method:
    """The same search with a fixed kernel instead of the one that `search` would choose."""

    def fixed() -> Kernel:
        return kernel

    def run(rows: slice) -> object:
        with mock.patch.object(hamming, "kernel", fixed):
            return method(rows)

    return run


def _recall(exact: Int64, hits: Int64) -> float:
    """Share of the exact hits, int64 [queries, k], that are among `hits`."""
    return float((exact[:, :, None] == hits[:, None]).any(axis=2).mean())


def _seconds(methods: Mapping[str, Method], repetitions: int) -> Seconds:
    """Mean wall and CPU time of a call, by method, batch and repetition; the methods are interleaved."""
    seconds: Seconds = {name: {batch: {"wall_s": [], "cpu_s": []} for batch in BATCHES} for name in methods}
    for batch in BATCHES:
        calls = CALLS if batch == BATCHES[0] else 1
        for method in methods.values():
            method(slice(0, batch))
        for _ in range(repetitions):
            for name, method in methods.items():
                wall, cpu = time.perf_counter(), time.process_time()
                for call in range(calls):
                    method(slice(call * batch, (call + 1) * batch))
                seconds[name][batch]["wall_s"].append((time.perf_counter() - wall) / calls)
                seconds[name][batch]["cpu_s"].append((time.process_time() - cpu) / calls)
    return seconds
