"""Benchmark of `embedpack serve`: start, overhead over the engine, many clients, overload, beside another server."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.arguments import add_number, add_pack, add_variant, variant_of
from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.http_client import ServerCommand, Service, embedpack_command, served
from benchmarks.host.load import closed_loop
from benchmarks.host.overload import measure_overload
from benchmarks.host.served_vectors import measure_vectors
from benchmarks.host.server_tables import table
from benchmarks.host.worker import measure_prepare
from benchmarks.jobs import VariantJob
from benchmarks.speed.inputs import inputs_of_lengths, mixed_lengths
from benchmarks.spreads import spread
from embedpack.embedder import Embedder
from embedpack.engine.options import EncodeOptions
from embedpack.errors import EmbedpackError
from embedpack.host.cores import available_cores
from embedpack.host.user_cache import CACHE_VARIABLE
from embedpack.inputs.items import Text
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run", "table"]

SUMMARY = "Start, overhead, many clients and overload of embedpack serve, beside a sentence-transformers server."
EXAMPLES = """\
  python -m benchmarks server packs/minilm
  python -m benchmarks server packs/minilm --checkpoint all-MiniLM-L6-v2 --rounds 5"""

TOKENS = 16
# Calls of a block; blocks of the engine and of the servers alternate, so that all meet the same load of the host.
BLOCK = 50
BLOCK_SECONDS = 3.0
MIN_CALLS = 5
# Most texts of a request at many clients.
MAX_TEXTS = 8
# Requests whose vectors are compared in every embedding_type.
COMPARED = 40
STARTS = 5
PEER = Path(__file__).parents[1] / "peers" / "sentence_server.py"


@dataclass(frozen=True)
class Subject:
    """A variant to measure: its embedder, task, weights format and threads, and the requests by texts."""

    embedder: Embedder
    task: str
    weights: str
    threads: int
    text: str
    requests: Sequence[Sequence[str]]

    def command(self, cache: str = "", options: Sequence[str] = ()) -> ServerCommand:
        """Command of the server."""
        return embedpack_command(self.embedder.pack.folder, self.weights, self.task, self.threads, cache, options)

    @property
    def chosen_task(self) -> str | None:
        """Task of calls of a switchable variant."""
        return self.task if self.embedder.pack.manifest.variants[self.embedder.variant].task is None else None

    @property
    def texts(self) -> list[str]:
        """All texts."""
        return [text for texts in self.requests for text in texts]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    add_variant(parser)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="also measure sentence-transformers with this")
    add_number(parser, "--rounds", 6, "repetitions of every measurement")
    add_number(parser, "--clients", 64, "clients at a time")
    add_number(parser, "--queue", 4, "option --queue of the server that is overloaded")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a server next to the engine in this process.

    Raises:
        EmbedpackError: the pack is broken, or a server failed.
    """
    subject = subject_of(options)
    with _services(subject, options.checkpoint) as services:
        one_text = _one_text(services, subject, options.rounds)
        clients = _many_clients(services, subject, options)
        texts = subject.requests[:COMPARED]
        own = services["embedpack"]
        vectors = measure_vectors(own, subject.embedder, texts, subject.chosen_task, options.clients)
    pack = subject.embedder.pack
    return {
        "model": pack.manifest.name,
        "variant": subject.embedder.variant,
        "threads": subject.threads,
        "start": _start(subject),
        "one_text": one_text,
        "clients": clients,
        "vectors": vectors,
        "overload": _overload(subject, options),
    }


def subject_of(options: argparse.Namespace) -> Subject:
    """Variant of the options, its embedder, and requests of mixed lengths."""
    pack = read_pack(options.pack)
    name = variant_of(pack, options.variant)
    variant = pack.manifest.variants[name]
    threads = options.threads or available_cores()
    (text,) = inputs_of_lengths(pack, [TOKENS], options.seed).texts
    lengths = [min(length, pack.manifest.text.max_tokens) for length in mixed_lengths(options.seed)]
    texts = inputs_of_lengths(pack, lengths, options.seed).texts
    requests = [[texts[row] for row in rows] for rows in _slices(len(texts), options.seed)]
    task = variant.task or next(iter(pack.manifest.tasks))
    embedder = Embedder(pack.folder, variant=name, threads=threads, prepared=False)
    return Subject(embedder, task, variant.weights, threads, text, requests)


@contextmanager
def _services(subject: Subject, checkpoint: Path | None) -> Iterator[dict[str, Service]]:
    """The server, and one of sentence-transformers if there is a checkpoint, by name."""
    with served(subject.command()) as own:
        if checkpoint is None:
            yield {"embedpack": own}
            return
        peer = [sys.executable, str(PEER), str(checkpoint), str(subject.threads)]
        with served(ServerCommand(peer, subject.task, {})) as other:
            yield {"embedpack": own, "sentence-transformers": other}


def _start(subject: Subject) -> dict[str, Any]:
    """Seconds, and those of CPU, from the start of the process until ready: plain pack, prepared pack."""
    pack = subject.embedder.pack
    job = VariantJob(pack=str(pack.folder.resolve()), variant=subject.embedder.variant, threads=subject.threads)
    with tempfile.TemporaryDirectory() as cache:
        in_fresh_process(measure_prepare, job, {CACHE_VARIABLE: cache})
        wall: dict[str, list[float]] = {"plain": [], "prepared": []}
        cpu: dict[str, list[float]] = {"plain": [], "prepared": []}
        for _ in range(STARTS):
            for form, folder in (("plain", ""), ("prepared", cache)):
                with served(subject.command(folder)) as service:
                    wall[form].append(service.ready_s)
                    cpu[form].append(service.cpu_s)
    return {form: {"wall_s": spread(wall[form]), "cpu_s": spread(cpu[form])} for form in wall}


def _one_text(services: Mapping[str, Service], subject: Subject, rounds: int) -> dict[str, Any]:
    """Milliseconds and CPU of each call, and differences from the engine of neighbouring blocks."""
    embedder = subject.embedder
    adapter = embedder.pack.manifest.variants[embedder.variant].adapter_of(subject.task)
    run_options = EncodeOptions(prompt=embedder.pack.manifest.tasks[subject.task].prompt(None), adapter=adapter)
    clients = {name: service.connect() for name, service in services.items()}
    request = services["embedpack"].request([subject.text])
    calls: dict[str, Callable[[], object]] = {
        "engine": lambda: embedder._encoder.run([Text(0, subject.text)], SENTENCE_EMBEDDING, run_options),
        **{name: partial(client.call, request) for name, client in clients.items()},
    }
    blocks: dict[str, list[list[float]]] = {name: [] for name in calls}
    for round_number in range(rounds + 1):
        for name, call in calls.items():
            times = _block(call)
            if round_number:
                blocks[name].append(times)
    for client in clients.values():
        client.close()
    quantiles = {
        name: {f"p{share}": [float(np.percentile(times, share)) for times in each] for share in (50, 99)}
        for name, each in blocks.items()
    }
    overhead = {
        name: {
            share: spread([own - engine for own, engine in zip(values, quantiles["engine"][share], strict=True)])
            for share, values in quantiles[name].items()
        }
        for name in services
    }
    spreads = {name: {share: spread(values) for share, values in each.items()} for name, each in quantiles.items()}
    return {"tokens": TOKENS, "ms": spreads, "overhead_ms": overhead}


def _block(call: Callable[[], object]) -> list[float]:
    """Milliseconds of BLOCK calls, fewer if they are slow."""
    times: list[float] = []
    while len(times) < BLOCK and (len(times) < MIN_CALLS or sum(times) < 1e3 * BLOCK_SECONDS):
        times.append(_milliseconds(call))
    return times


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _many_clients(services: Mapping[str, Service], subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of one call offline and of many clients at each server, alternating."""
    tokens = sum(min(length, subject.embedder.pack.manifest.text.max_tokens) for length in mixed_lengths(options.seed))
    requests = [services["embedpack"].request(texts) for texts in subject.requests]
    rates: dict[str, list[float]] = {name: [] for name in ("offline", *services)}
    for _ in range(options.rounds):
        start = time.perf_counter()
        subject.embedder.encode(subject.texts, task=subject.chosen_task)
        rates["offline"].append(tokens / (time.perf_counter() - start))
        for name, service in services.items():
            start = time.perf_counter()
            replies = closed_loop(service.port, requests, options.clients)
            seconds = time.perf_counter() - start
            if any(reply.status != 200 for reply in replies):
                raise EmbedpackError(f"{name}: statuses {sorted({reply.status for reply in replies})} in place of 200")
            rates[name].append(tokens / seconds)
    return {
        "clients": options.clients,
        "texts": len(subject.texts),
        "requests": len(requests),
        "tokens": tokens,
        "tokens_per_s": {name: spread(values) for name, values in rates.items()},
        "share_of_offline": {
            name: spread([own / offline for own, offline in zip(rates[name], rates["offline"], strict=True)])
            for name in services
        },
    }


def _overload(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    expected = [
        np.asarray(subject.embedder.encode(list(texts), task=subject.chosen_task).codes) for texts in subject.requests
    ]
    with served(subject.command(options=["--queue", str(options.queue)])) as service:
        requests = [service.request(texts) for texts in subject.requests]
        rounds = [
            measure_overload(service, requests, expected, options.queue, options.seed + number)
            for number in range(max(1, options.rounds // 2))
        ]
    return {"queue": options.queue, "rounds": rounds}


def _slices(count: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Rows of requests of 1 to MAX_TEXTS texts each."""
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(rng.integers(1, MAX_TEXTS + 1, count))
    return np.split(np.arange(count), cuts[cuts < count])
