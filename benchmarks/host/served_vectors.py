"""Vectors of a server in every embedding_type, next to those of `Embedder.encode`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.host.http_client import Service
from benchmarks.host.load import closed_loop
from benchmarks.host.overload import cosine_distance
from embedpack.embedder import Embedder

PRECISIONS: Mapping[str, str] = {
    "float": "float32", "base64": "float32", "int8": "int8", "binary": "binary", "ubinary": "binary",
}  # fmt: skip
# `binary` is the byte of `ubinary` minus this.
OFFSET = 128


def measure_vectors(
    service: Service, embedder: Embedder, texts: Sequence[Sequence[str]], task: str | None, clients: int
) -> dict[str, Any]:
    """Compare vectors of each type: of requests that are alone, then of requests of `clients` at a time.

    Returns:
        by type: the share of equal values of requests alone and at `clients`, and the largest 1 - cosine of floats.
    """
    result = {}
    for encoding, precision in PRECISIONS.items():
        requests = [service.request(each, encoding) for each in texts]
        wanted = [embedder.encode(list(each), task=task, precision=precision).codes for each in texts]
        alone, together = (_codes(service, requests, encoding, number) for number in (1, clients))
        result[encoding] = {
            "equal_alone": _equal(alone, wanted),
            "equal_at_clients": _equal(together, wanted),
            "max_1_minus_cosine": max(map(cosine_distance, together, wanted)) if precision == "float32" else None,
        }
    return result


def _codes(service: Service, requests: Sequence[bytes], encoding: str, clients: int) -> list[Any]:
    replies = closed_loop(service.port, requests, clients)
    return [_array([item["embedding"] for item in json.loads(reply.body)["data"]], encoding) for reply in replies]


def _array(rows: Sequence[Any], encoding: str) -> Any:
    if encoding == "base64":
        return np.array([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    if encoding == "binary":
        return (np.array(rows) + OFFSET).astype(np.uint8)
    return np.array(rows, {"float": np.float32, "int8": np.int8, "ubinary": np.uint8}[encoding])


def _equal(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Share of equal values, floats bit for bit."""
    first, second = (np.concatenate([np.ravel(each) for each in arrays]) for arrays in (found, wanted))
    return float((first.view(f"u{first.itemsize}") == second.view(f"u{second.itemsize}")).mean())
