"""A server at twice the rate that it can answer: times of the requests that it accepts and of those that it refuses."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.host.http_client import Service, vectors_of
from benchmarks.host.load import Reply, closed_loop, open_loop

REFUSED = (429, 503)
# Rate of the overload, in units of the rate of `clients` that wait for their answers.
OVERLOAD = 2.0
SECONDS = 20.0
# Largest cosine distance that different batches may cause.
TOLERANCE = 1e-6


def measure_overload(
    service: Service, requests: Sequence[bytes], expected: Sequence[npt.NDArray[np.float32]], clients: int, seed: int
) -> dict[str, Any]:
    """Measure one client, `clients` clients in a closed loop, then random times at twice their rate.

    `expected` has the vectors of each request, float32 [n, dimensions].
    """
    alone = closed_loop(service.port, requests, 1)
    start = time.perf_counter()
    together = closed_loop(service.port, requests, clients)
    rate = sum(reply.status == 200 for reply in together) / (time.perf_counter() - start)
    sent = [number % len(requests) for number in range(math.ceil(OVERLOAD * rate * SECONDS))]
    replies = open_loop(service.port, [requests[number] for number in sent], OVERLOAD * rate, seed)
    accepted = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status in REFUSED]
    unloaded = milliseconds(alone)
    loaded = milliseconds(accepted)
    return {
        "requests_per_s": rate,
        "sent": len(replies),
        "accepted": len(accepted),
        "refused": len(refused),
        "lost": len(replies) - len(accepted) - len(refused),
        "wrong": sum(is_wrong(reply, expected[sent[reply.request]]) for reply in accepted),
        "unloaded_ms": unloaded,
        "accepted_ms": loaded,
        "refused_ms": milliseconds(refused),
        "accepted_to_unloaded_p99": loaded["p99"] / unloaded["p99"],
    }


def milliseconds(replies: Sequence[Reply]) -> dict[str, float]:
    """Quantiles of the times of answers; none without answers."""
    if not replies:
        return {}
    times = [1e3 * reply.seconds for reply in replies]
    return {f"p{share}": float(np.percentile(times, share)) for share in (50, 99)}


def cosine_distance(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    """Largest 1 - cosine of two sets of vectors [n, d], in float64: lengths differ by more than directions do."""
    first, second = (vectors.astype(np.float64) for vectors in (found, wanted))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((1 - (first * second).sum(axis=1) / lengths).max())


def is_wrong(reply: Reply, wanted: npt.NDArray[np.float32]) -> bool:
    """True if an answer does not have these vectors, float32 [n, dimensions]."""
    found = vectors_of(reply.body)
    return found.shape != wanted.shape or cosine_distance(found, wanted) > TOLERANCE
