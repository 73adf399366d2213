"""One measurement of search in a fresh process, whose libraries were told to take one thread."""

from __future__ import annotations

import functools
import importlib.util
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.jobs import ScanJob, StagesJob
from embedpack import Embeddings, Hits, search
from embedpack.scoring import hamming
from embedpack.scoring.hamming import Kernel, with_numkong, with_numpy
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Float32, Precision, code_width, quantize, unit
from embedpack_export.stages.output_codes import int8_scale

# Queries of a call.
BATCHES = (1, 16)
# Calls of which a repetition takes the mean, for the smaller batch: each with other queries.
CALLS = 5
OVERSAMPLES = (1, 2, 5, 10, 20, 50, 100)
# Queries by which the part found is counted.
JUDGED = 256
# The mixture: members of a cluster, their distance to its centre relative to that of the centre to the origin, and how
# the variance falls from one principal axis to the next, as a power of its number.
MEMBERS, SPREAD, SLOPE = 100, 0.8, 0.8
# Documents made at a time.
BLOCK = 1 << 15
BRUTE_FORCE = "float32 brute force"

Int64 = npt.NDArray[np.int64]
# A search for the nearest of some queries, given as rows of all that were made.
Way = Callable[[slice], object]


def measure_scan(job: ScanJob) -> dict[str, Any]:
    """Seconds of a call by every kernel and by faiss, and whether all find the same distances."""
    rng = np.random.default_rng(job.seed)
    codes = rng.integers(0, 256, (job.rows, job.bits // 8), dtype=np.uint8)
    asked = rng.integers(0, 256, (max(BATCHES) * CALLS, job.bits // 8), dtype=np.uint8)
    documents, queries = _embeddings(codes, "binary", job.bits), _embeddings(asked, "binary", job.bits)
    ways: dict[str, Way] = {
        name: _by(kernel, lambda some: search(queries[some], documents, job.k)) for name, kernel in kernels().items()
    }
    expected = np.rint((1 - search(queries, documents, job.k).scores) * (job.bits / 2))
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        index = faiss.IndexBinaryFlat(job.bits)
        index.add(codes)
        ways["faiss"] = lambda some: index.search(asked[some], job.k)
        # Among equal distances its choice is its own.
        if not np.array_equal(np.sort(index.search(asked, job.k)[0], axis=1), expected):
            raise AssertionError("faiss finds other distances")
    return {"seconds": _seconds(ways, job.repetitions), "peak_bytes": _peak_bytes()}


def measure_stages(job: StagesJob) -> dict[str, Any]:
    """The part of brute force's hits that each oversample finds, then seconds of a call at the first that suffices."""
    rng = np.random.default_rng(job.seed)
    draw = _mixture(rng, job.rows, job.dimensions)
    asked = draw(JUDGED)
    vectors = np.empty((job.rows, job.dimensions), np.float32)
    float16 = np.empty((job.rows, job.dimensions), np.float16)
    int8 = np.empty((job.rows, job.dimensions), np.int8)
    bits = np.empty((job.rows, code_width("binary", job.dimensions)), np.uint8)
    scale = int8_scale(asked)
    for start in range(0, job.rows, BLOCK):
        rows = slice(start, min(start + BLOCK, job.rows))
        vectors[rows] = draw(rows.stop - start)
        float16[rows] = quantize(vectors[rows], "float16", None)
        int8[rows] = quantize(vectors[rows], "int8", scale)
        bits[rows] = quantize(vectors[rows], "binary", _signs(job.dimensions))
    queries = _embeddings(asked, "float32", job.dimensions)
    documents = _embeddings(bits, "binary", job.dimensions)
    rescores = {
        "int8": _embeddings(int8, "int8", job.dimensions),
        "float16": _embeddings(float16, "float16", job.dimensions),
        "float32": _embeddings(vectors, "float32", job.dimensions),
    }
    batch = max(BATCHES)
    exact = np.concatenate([brute_force(asked[i : i + batch], vectors, job.k) for i in range(0, JUDGED, batch)])
    ways: dict[str, Way] = {}
    found: dict[str, dict[int, float]] = {}
    chosen: dict[str, int] = {}
    for name, rescore in rescores.items():
        found[name] = {
            oversample: _part(exact, search(queries, documents, job.k, rescore=rescore, oversample=oversample).indices)
            for oversample in OVERSAMPLES
        }
        # Codes of 8 bits have a ceiling, which may lie below the part that is wanted.
        enough = min(job.found, max(found[name].values()))
        chosen[name] = next(oversample for oversample, part in found[name].items() if part >= enough)
        two_stages = partial(_two_stages, queries, documents, job.k, rescore, chosen[name])
        ways |= {f"{kernel}, {name}": _by(kernels()[kernel], two_stages) for kernel in kernels()}
    ways[BRUTE_FORCE] = lambda some: brute_force(asked[some], vectors, job.k)
    return {
        "found": found,
        "oversample": chosen,
        "seconds": _seconds(ways, job.repetitions),
        "peak_bytes": _peak_bytes(),
    }


def _two_stages(
    queries: Embeddings, documents: Embeddings, k: int, rescore: Embeddings, oversample: int, some: slice
) -> Hits:
    return search(queries[some], documents, k, rescore=rescore, oversample=oversample)


def kernels() -> Mapping[str, Kernel]:
    """Of Hamming distances, those that are installed."""
    installed = importlib.util.find_spec("numkong") is not None
    return {"numpy": with_numpy} | ({"numkong": with_numkong} if installed else {})


def brute_force(queries: Float32, documents: Float32, k: int) -> Int64:
    """Rows of the k highest dot products, int64 [queries, k]: one matrix product, one partition."""
    # One query as a vector: numpy hands it to the kernel for that.
    scores = (documents @ queries[0])[None] if len(queries) == 1 else queries @ documents.T
    best = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)


def _mixture(rng: np.random.Generator, rows: int, dimensions: int) -> Callable[[int], Float32]:
    """Draws unit vectors, float32 [n, dimensions], of one mixture of Gaussians with axes in no special direction."""
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
    """The codebook whose bits are the signs."""
    return Codebook.gaussian(np.zeros(dimensions, np.float32), dimensions**-0.5)


def _by(kernel: Kernel, way: Way) -> Way:
    """The same search with a kernel that is not chosen but given."""

    def given() -> Kernel:
        return kernel

    def run(some: slice) -> object:
        with mock.patch.object(hamming, "kernel", given):
            return way(some)

    return run


def _part(exact: Int64, found: Int64) -> float:
    """Share of the exact hits that are among those found."""
    return float((exact[:, :, None] == found[:, None]).any(axis=2).mean())


def _seconds(ways: Mapping[str, Way], repetitions: int) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Mean wall and CPU time of a call, for every way, batch and repetition; the ways take turns."""
    seconds: dict[str, dict[int, dict[str, list[float]]]] = {
        name: {batch: {"wall_s": [], "cpu_s": []} for batch in BATCHES} for name in ways
    }
    for batch in BATCHES:
        calls = CALLS if batch == BATCHES[0] else 1
        for way in ways.values():
            way(slice(0, batch))
        for _ in range(repetitions):
            for name, way in ways.items():
                wall, cpu = time.perf_counter(), time.process_time()
                for call in range(calls):
                    way(slice(call * batch, (call + 1) * batch))
                seconds[name][batch]["wall_s"].append((time.perf_counter() - wall) / calls)
                seconds[name][batch]["cpu_s"].append((time.process_time() - cpu) / calls)
    return seconds


def _peak_bytes() -> int:
    """Most memory that the process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Do the job on the command line."""
    job = msgspec.json.decode(sys.argv[1], type=ScanJob | StagesJob)
    found = measure_scan(job) if isinstance(job, ScanJob) else measure_stages(job)
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
