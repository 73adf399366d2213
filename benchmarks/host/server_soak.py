"""Soak of `embedpack serve`: memory, errors and vectors during minutes of requests of mixed lengths."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.arguments import add_number, add_pack, add_variant
from benchmarks.host.http_client import served
from benchmarks.host.load import open_loop
from benchmarks.host.overload import is_wrong, milliseconds
from benchmarks.host.server import subject_of
from benchmarks.timing import memory
from embedpack.errors import InputError
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Memory and errors of embedpack serve during half an hour of requests."
EXAMPLES = """\
  python -m benchmarks server-soak packs/minilm
  python -m benchmarks server-soak packs/minilm --minutes 5 --rate 4"""

MIN_STEPS = 10
# Share of the steps that fill the allocators' caches.
WARM_UP_SHARE = 0.2
# Growth of memory after them that counts as flat.
MAX_GROWTH = 0.05
# A busy host may keep a request waiting; the soak is about memory and errors, not about time.
DEADLINE = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    add_variant(parser)
    add_number(parser, "--minutes", 30.0, "duration")
    add_number(parser, "--rate", 2.0, "requests a second, at random times")
    add_number(parser, "--step", 30.0, "seconds between two readings of the memory")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Send requests to a server, and read its memory after each step.

    Raises:
        EmbedpackError: the pack is broken, or the server failed.
    """
    steps = round(60 * options.minutes / options.step)
    if steps < MIN_STEPS:
        raise InputError(f"{steps} steps; at least {MIN_STEPS} are needed: lower --step, or raise --minutes")
    subject = subject_of(options)
    embedder = subject.embedder
    expected = [np.asarray(embedder.encode(list(texts), task=subject.chosen_task).codes) for texts in subject.requests]
    rng = np.random.default_rng(options.seed)
    statuses: Counter[int] = Counter()
    rows = []
    with served(subject.command(options=["--deadline", str(DEADLINE)])) as service:
        requests = [service.request(texts) for texts in subject.requests]
        for step in range(steps):
            chosen = rng.integers(len(requests), size=round(options.rate * options.step))
            replies = open_loop(service.port, [requests[row] for row in chosen], options.rate, options.seed + step)
            statuses.update(reply.status for reply in replies)
            wrong = sum(is_wrong(reply, expected[chosen[reply.request]]) for reply in replies if reply.status == 200)
            rows.append({"wrong": wrong, **milliseconds(replies), **memory(service.pid)})
        cpu_s = service.cpu_s
    return {
        "model": embedder.pack.manifest.name,
        "variant": embedder.variant,
        "minutes": options.minutes,
        "rate": options.rate,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "wrong": sum(row["wrong"] for row in rows),
        "cpu_s": cpu_s,
        "growth": {kind: growth([row[kind] for row in rows]) for kind in ("rss", "anonymous")},
        "steps": rows,
    }


def growth(values: Sequence[float]) -> float:
    """Largest value after the warm-up, compared with the first one after it, minus 1."""
    rest = values[int(WARM_UP_SHARE * len(values)) :]
    return max(rest) / rest[0] - 1


def table(results: Mapping[str, Any]) -> str:
    """Table of some steps, and the growth of memory."""
    steps = results["steps"]
    rows = [
        (
            str(number + 1),
            f"{steps[number]['rss'] / 1e6:.1f}",
            f"{steps[number]['anonymous'] / 1e6:.1f}",
            f"{steps[number]['p99']:.0f}",
        )
        for number in range(0, len(steps), max(1, len(steps) // 20))
    ]
    growths = ", ".join(f"{kind} {value:+.1%}" for kind, value in results["growth"].items())
    outcome = "flat" if max(results["growth"].values()) <= MAX_GROWTH else "GROWING"
    return "\n\n".join(
        [
            text_table(("step", "resident MB", "anonymous MB", "p99 ms"), rows),
            f"{results['minutes']:g} minutes, statuses {results['statuses']}, {results['wrong']} wrong; growth "
            f"after the first {WARM_UP_SHARE:.0%}: {growths}: {outcome} (flat: at most {MAX_GROWTH:.0%})",
        ]
    )
