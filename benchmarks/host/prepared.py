"""Benchmark of `embedpack prepare`: cold start, memory, pages shared by processes, idle CPU, threads."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.arguments import add_number, add_pack, add_variant, variant_of
from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.worker import (
    TEXTS,
    TOKENS,
    ColdJob,
    ShareJob,
    measure_cold,
    measure_idle,
    measure_limited,
    measure_prepare,
    measure_run,
    measure_share,
)
from benchmarks.jobs import VariantJob
from benchmarks.speed.peak import measured_peak
from benchmarks.spreads import cell, spread
from embedpack.engine.loading import PackGraph
from embedpack.host.cores import available_cores
from embedpack.host.user_cache import CACHE_VARIABLE
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Effects of embedpack prepare: cold start, memory, shared pages; idle CPU, threads."
EXAMPLES = """\
  python -m benchmarks prepared packs/minilm
  python -m benchmarks prepared packs/v4 --variant retrieval-int8 --repetitions 3"""

TIMES = ("start_s", "import_s", "load_s", "first_s")
MEMORY = ("after_import", "after_load", "after_texts")

# Calls a function on a job in a fresh process, with a plain or with a prepared pack.
InProcess = Callable[..., Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    add_variant(parser)
    add_number(parser, "--repetitions", 7, "repetitions of every time")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a variant plain and prepared, interleaved.

    Raises:
        EmbedpackError: the pack is broken, or a worker failed.
    """
    pack = read_pack(options.pack)
    variant = variant_of(pack, options.variant)
    graph = PackGraph.of(pack, pack.manifest.variants[variant])
    job: dict[str, Any] = {
        "pack": str(pack.folder.resolve()),
        "variant": variant,
        "threads": options.threads or available_cores(),
    }
    with tempfile.TemporaryDirectory() as cache:
        prepared = partial(in_fresh_process, environment={CACHE_VARIABLE: cache})
        forms: dict[str, InProcess] = {
            "plain": partial(in_fresh_process, environment={CACHE_VARIABLE: ""}),
            "prepared": prepared,
        }
        return {
            "model": pack.manifest.name,
            "fingerprint": pack.manifest.source.fingerprint,
            "variant": variant,
            "graph": graph.name,
            "weights_bytes": graph.weight_sizes.total,
            "repetitions": options.repetitions,
            "prepare": prepared(measure_prepare, VariantJob(**job)),
            "cold": _cold_starts(forms, job, options.repetitions),
            "two_processes": {form: call(measure_share, ShareJob(**job)) for form, call in forms.items()},
            **_threads_and_peak(prepared, job, options.repetitions),
            "idle": prepared(measure_idle, VariantJob(**job)),
            "one_cpu": prepared(measure_limited, VariantJob(**job)),
        }


def _cold_starts(forms: Mapping[str, InProcess], job: Mapping[str, Any], repetitions: int) -> dict[str, Any]:
    """Cold starts of each form, interleaved; the first of each fills the system's file cache and does not count."""
    starts: dict[str, list[dict[str, Any]]] = {form: [] for form in forms}
    for _ in range(repetitions + 1):
        for form, call in forms.items():
            starts[form].append(call(measure_cold, ColdJob(**job, started=time.time())))
    return {form: _cold_start(measured[1:]) for form, measured in starts.items()}


def _cold_start(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Spreads of times, medians of memory."""
    times = {name: spread([each[name] for each in measured]) for name in TIMES}
    memory = {
        step: {kind: spread([each[step][kind] for each in measured])["median"] for kind in ("rss", "anonymous")}
        for step in MEMORY
    }
    peak = spread([each["peak_after_load"] for each in measured])["median"]
    return {**times, "memory": memory, "peak_after_load": peak}


def _threads_and_peak(call: InProcess, job: Mapping[str, Any], repetitions: int) -> dict[str, Any]:
    """Times on one thread and on all, interleaved with the peak of as many cores."""
    counts = sorted({1, int(job["threads"])})
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    peaks: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for _ in range(repetitions):
        for count in counts:
            runs[count].append(call(measure_run, VariantJob(**{**job, "threads": count})))
            peaks[count].append(measured_peak(count))
    return {
        "threads": {
            str(count): {unit: spread([times[unit] for times in measured]) for unit in measured[0]}
            for count, measured in runs.items()
        },
        "peak": {str(count): measured for count, measured in peaks.items()},
    }


def anonymous_share(results: Mapping[str, Any], form: str) -> float:
    """Anonymous memory that loading adds, as a share of the weights."""
    memory = results["cold"][form]["memory"]
    return (memory["after_load"]["anonymous"] - memory["after_import"]["anonymous"]) / results["weights_bytes"]


def table(results: Mapping[str, Any]) -> str:
    """Tables of cold start and memory, shared pages, threads, and the rest."""
    gigabytes = results["weights_bytes"] / 1e9
    header = ("", "start to first vector s", "import s", "load s", "load s/GB", "first vector s",
              "anonymous after load MB", "share of weights", "resident after texts MB")  # fmt: skip
    rows = []
    for form, start in results["cold"].items():
        memory = start["memory"]
        rows.append(
            (
                form,
                *(cell(start[name], 1, 3) for name in ("start_s", "import_s", "load_s")),
                f"{start['load_s']['median'] / gigabytes:.2f}",
                cell(start["first_s"], 1, 3),
                f"{memory['after_load']['anonymous'] / 1e6:.1f}",
                f"{anonymous_share(results, form):.2f}",
                f"{memory['after_texts']['rss'] / 1e6:.1f}",
            )
        )
    return "\n\n".join([text_table(header, rows), _sharing(results), _threads(results), _rest(results)])


def _sharing(results: Mapping[str, Any]) -> str:
    rows = [
        (form, *(f"{memory[process][kind] / 1e6:.1f}" for process in ("first", "second") for kind in ("rss", "pss")))
        for form, memory in results["two_processes"].items()
    ]
    return text_table(("two processes", "first: resident MB", "Pss MB", "second: resident MB", "Pss MB"), rows)


def _threads(results: Mapping[str, Any]) -> str:
    threads = results["threads"]
    rows = []
    for count, times in threads.items():
        row = [count]
        for kind in ("", "texts_"):
            speed_up = threads["1"][f"{kind}wall_s"]["median"] / times[f"{kind}wall_s"]["median"]
            row += [cell(times[f"{kind}{clock}"], 1e3, 1) for clock in ("wall_s", "cpu_s")] + [f"{speed_up:.2f}"]
        rows.append(row)
    header = ("threads", f"a text of {TOKENS} tokens: wall ms", "CPU ms", "speed-up",
              f"{TEXTS} of them: wall ms", "CPU ms", "speed-up")  # fmt: skip
    return "\n".join([text_table(header, rows), *concurrent_peak(results["peak"])])


def concurrent_peak(peaks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Peak of several cores at once relative to one: on some hosts two cores share the arithmetic units of one."""
    reasons = [peak["not_measured"] for measured in peaks.values() for peak in measured if "not_measured" in peak]
    if reasons:
        return [f"peak of several cores at once: not measured, {reasons[0]}"]
    alone = peaks["1"]
    lines = []
    for count, together in peaks.items():
        for name in alone[0] if count != "1" else ():
            ratios = [several[name]["gops"] / one[name]["gops"] for one, several in zip(alone, together, strict=True)]
            lines.append(f"peak of {count} cores at once in {name}: {cell(spread(ratios), 1, 2)} times that of one")
    return lines


def _rest(results: Mapping[str, Any]) -> str:
    prepare = results["prepare"]
    return "\n".join(
        [
            f"{results['variant']} ({results['graph']}), weights {results['weights_bytes'] / 1e6:.1f} MB",
            f"prepare: {prepare['seconds']:.1f} s, {prepare['disk_bytes'] / 1e6:.1f} MB on disk, peak "
            f"{prepare['peak_rss'] / 1e6:.0f} MB resident; batches of {prepare['token_budget']} tokens",
            f"idle: {results['idle']['cpu_share']:.4%} of a CPU",
            f"limited to one CPU: {results['one_cpu']['threads_added']} threads in addition to Python's own",
        ]
    )
