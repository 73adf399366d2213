"""Changed files of saved vectors: load, decode, scores and search."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from embedpack import Embeddings, MultiEmbeddings, maxsim, search, similarity
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import PRECISIONS, Precision, is_low_bit, quantize, unit
from embedpack.vectors.multi_embeddings import offsets_of
from tests.fuzz.mutations import mutate_safetensors
from tests.fuzz.outcome import Attempt, Fuzzer, check

DIMENSIONS = 40
SPACE = "model/task/0"
COUNTS = (3, 1, 4)
# Cosines are computed in float32.
MAX_COSINE = 1.0001


def prepare(folder: Path) -> Attempt:
    """Tries with changed files of single vectors and multi-vectors in every precision."""
    queries = {precision: single(precision, seed=1) for precision in PRECISIONS}
    multi_queries = {precision: multi(precision, seed=1) for precision in PRECISIONS}
    for precision in PRECISIONS:
        single(precision, seed=0).save(folder / f"single-{precision}")
        multi(precision, seed=0).save(folder / f"multi-{precision}")
    path = folder / "changed"

    def attempt(rng: random.Random) -> None:
        kind, precision = rng.choice(("single", "multi")), rng.choice(PRECISIONS)
        path.write_bytes(mutate_safetensors((folder / f"{kind}-{precision}").read_bytes(), rng))
        asked = precision if rng.random() < 0.3 else "float32"
        if kind == "single":
            use_single(Embeddings.load(path, mapped=rng.random() < 0.3), queries[asked])
        else:
            use_multi(MultiEmbeddings.load(path, mapped=rng.random() < 0.3), multi_queries[asked])

    return attempt


def vectors(seed: int) -> Float32:
    """Random unit vectors, float32 [sum of COUNTS, DIMENSIONS]."""
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((sum(COUNTS), DIMENSIONS)).astype(np.float32))


def codes_of(precision: Precision, seed: int) -> tuple[np.ndarray, Codebook | None]:
    """Codes of random vectors, and their codebook."""
    rng = np.random.default_rng(5)
    center = rng.normal(0, 0.1, DIMENSIONS).astype(np.float32)
    codebook = Codebook.gaussian(center, DIMENSIONS**-0.5) if is_low_bit(precision) else None
    by = codebook if codebook is not None else 0.008 if precision == "int8" else None
    return quantize(vectors(seed), precision, by), codebook


def single(precision: Precision, seed: int) -> Embeddings:
    """Single vectors in a precision."""
    codes, codebook = codes_of(precision, seed)
    return Embeddings(codes, precision, DIMENSIONS, SPACE, None, codebook)


def multi(precision: Precision, seed: int) -> MultiEmbeddings:
    """Multi-vectors in a precision."""
    codes, codebook = codes_of(precision, seed)
    return MultiEmbeddings(codes, offsets_of(COUNTS), precision, DIMENSIONS, SPACE, None, codebook)


def use_single(loaded: Embeddings, queries: Embeddings) -> None:
    """Check decoded vectors, similarities and hits."""
    check_decoded(loaded.decode())
    scores = similarity(queries, loaded)
    check_scores(scores, 1)
    hits = search(queries, loaded, k=3)
    check(hits.scores.shape == (len(queries), min(3, len(loaded))), f"{hits.scores.shape} scores of hits")
    best = np.sort(scores, axis=1)[:, ::-1][:, : hits.scores.shape[1]]
    check(bool(np.allclose(hits.scores, best, atol=1e-5)), "the hits are not the best scores")


def use_multi(loaded: MultiEmbeddings, queries: MultiEmbeddings) -> None:
    """Check decoded vectors and MaxSim scores."""
    for rows in loaded.decode():
        check_decoded(rows)
    check_scores(maxsim(queries, loaded), max(COUNTS))


def check_decoded(rows: Float32) -> None:
    """Decoded vectors have length 1, or are zero."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    check(bool(((np.abs(lengths - 1) < 1e-3) | (lengths == 0)).all()), f"decoded to lengths {lengths}")


def check_scores(scores: Float32, most: float) -> None:
    """Scores are finite and within bounds."""
    check(bool((np.abs(scores) <= most * MAX_COSINE).all()), f"scores {scores}")


FUZZER = Fuzzer("saved vectors", 2000, prepare)
