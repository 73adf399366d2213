"""Benchmark of `embedpack serve`: overhead over the engine for one text, throughput and vectors at many clients."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.arguments import add_number, add_pack, add_variant, variant_of
from benchmarks.host.http_client import Service, served, vectors_of
from benchmarks.speed.inputs import inputs_of_lengths, mixed_lengths
from benchmarks.spreads import cell, spread
from embedpack.embedder import Embedder
from embedpack.engine.options import EncodeOptions
from embedpack.host.cores import available_cores
from embedpack.inputs.items import Text
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Overhead of embedpack serve for one text; throughput and vectors at many clients."
EXAMPLES = """\
  python -m benchmarks server packs/minilm
  python -m benchmarks server packs/minilm --clients 16 --rounds 5"""

TOKENS = 16
# Calls of a block; blocks of the engine and of the server alternate, so that both meet the same load of the host.
BLOCK = 50
# Most texts of a request at many clients.
MAX_TEXTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    add_variant(parser)
    add_number(parser, "--rounds", 10, "blocks of each kind")
    add_number(parser, "--clients", 64, "clients at a time")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a server next to the engine in this process.

    Raises:
        EmbedpackError: the pack is broken, or the server failed.
    """
    pack = read_pack(options.pack)
    name = variant_of(pack, options.variant)
    variant = pack.manifest.variants[name]
    task = variant.task or next(iter(pack.manifest.tasks))
    threads = options.threads or available_cores()
    embedder = Embedder(pack.folder, variant=name, threads=threads)
    (text,) = inputs_of_lengths(pack, [TOKENS], options.seed).texts
    lengths = [min(length, pack.manifest.text.max_tokens) for length in mixed_lengths(options.seed)]
    texts = inputs_of_lengths(pack, lengths, options.seed).texts
    with served(str(pack.folder), variant.weights, task, threads) as service:
        latency = _latency(service, embedder, task, text, options.rounds)
        load = _many_clients(service, embedder, task, texts, options)
    return {"model": pack.manifest.name, "variant": name, "threads": threads, "one_text": latency, "clients": load}


def _latency(service: Service, embedder: Embedder, task: str, text: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of each call, and differences of the medians of neighbouring blocks."""
    adapter = embedder.pack.manifest.variants[embedder.variant].adapter_of(task)
    run_options = EncodeOptions(prompt=embedder.pack.manifest.tasks[task].prompt(None), adapter=adapter)
    client, request = service.connect(), service.request([text])
    calls: dict[str, Callable[[], object]] = {
        "engine": lambda: embedder._encoder.run([Text(0, text)], SENTENCE_EMBEDDING, run_options),
        "server": lambda: client.call(request),
    }
    blocks: dict[str, list[list[float]]] = {name: [] for name in calls}
    for round_number in range(rounds + 1):
        for name, call in calls.items():
            times = [_milliseconds(call) for _ in range(BLOCK)]
            if round_number:
                blocks[name].append(times)
    client.close()
    medians = {name: [float(np.median(times)) for times in each] for name, each in blocks.items()}
    overhead = [server - engine for server, engine in zip(medians["server"], medians["engine"], strict=True)]
    quantiles = {
        name: {f"p{share}": float(np.percentile(np.concatenate(each), share)) for share in (50, 99)}
        for name, each in blocks.items()
    }
    return {"tokens": TOKENS, **quantiles, "overhead_ms": spread(overhead)}


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _many_clients(
    service: Service, embedder: Embedder, task: str, texts: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Texts per second of one call offline and of many clients, alternating; vectors compared with those offline."""
    slices = _slices(len(texts), options.seed)
    requests = [service.request([texts[row] for row in rows]) for rows in slices]
    switchable = embedder.pack.manifest.variants[embedder.variant].task is None
    offline, online, losses, equal = [], [], [], []
    for _ in range(options.rounds):
        start = time.perf_counter()
        expected = embedder.encode(list(texts), task=task if switchable else None).codes
        offline.append(len(texts) / (time.perf_counter() - start))
        start = time.perf_counter()
        bodies = _call_all(service, requests, options.clients)
        online.append(len(texts) / (time.perf_counter() - start))
        found = np.concatenate([vectors_of(body) for body in bodies])
        wanted = expected[np.concatenate(slices)]
        losses.append(float((1 - (_exact_unit(found) * _exact_unit(wanted)).sum(axis=1)).max()))
        equal.append(float((found.view(np.uint32) == wanted.view(np.uint32)).all(axis=1).mean()))
    return {
        "clients": options.clients,
        "texts": len(texts),
        "requests": len(requests),
        "offline_texts_per_s": spread(offline),
        "server_texts_per_s": spread(online),
        "share": spread([server / engine for server, engine in zip(online, offline, strict=True)]),
        "max_1_minus_cosine": max(losses),
        "bitwise_equal": spread(equal),
    }


def _exact_unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Vectors [n, d] of length 1 in float64: lengths of float32 vectors differ from 1 by more than directions do."""
    exact = vectors.astype(np.float64)
    unit: npt.NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit


def _slices(count: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Rows of requests of 1 to MAX_TEXTS texts each."""
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(rng.integers(1, MAX_TEXTS + 1, count))
    return np.split(np.arange(count), cuts[cuts < count])


def _call_all(service: Service, requests: Sequence[bytes], clients: int) -> list[bytes]:
    """Send requests over `clients` parallel connections; return the responses in the order of the requests."""
    open_clients = [service.connect() for _ in range(clients)]
    answers: list[bytes] = [b""] * len(requests)

    def work(number: int) -> None:
        for row in range(number, len(requests), clients):
            answers[row] = open_clients[number].call(requests[row])

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    for client in open_clients:
        client.close()
    return answers


def table(results: Mapping[str, Any]) -> str:
    """Table of one text, and lines about many clients."""
    one, many = results["one_text"], results["clients"]
    rows = [(name, f"{one[name]['p50']:.2f}", f"{one[name]['p99']:.2f}") for name in ("engine", "server")]
    return "\n".join(
        [
            text_table((f"a text of {one['tokens']} tokens", "p50 ms", "p99 ms"), rows),
            f"overhead of the server, p50: {cell(one['overhead_ms'], 1, 2)} ms",
            f"{many['clients']} clients, {many['requests']} requests, {many['texts']} texts: "
            f"{cell(many['server_texts_per_s'], 1, 0)} texts/s, {cell(many['share'], 1, 2)} times one call offline "
            f"({cell(many['offline_texts_per_s'], 1, 0)} texts/s); the clients use the same cores",
            f"vectors: largest 1 - cosine {many['max_1_minus_cosine']:.1e}, "
            f"bitwise equal {cell(many['bitwise_equal'], 100, 1)} %",
        ]
    )
