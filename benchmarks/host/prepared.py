"""Prepared: what `embedpack prepare` changes on this host: cold start, memory, shared pages; idle CPU and threads."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.host.worker import (
    MODULE,
    TEXTS,
    TOKENS,
    ColdJob,
    IdleJob,
    LimitedJob,
    RunJob,
    SaveJob,
    ShareJob,
)
from benchmarks.jobs import in_fresh_process
from benchmarks.speed.peak import measured_peak
from benchmarks.spreads import cell, spread
from embedpack.engine.loading import PackGraph
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "What embedpack prepare changes: cold start, memory, shared pages; idle CPU, threads."
EXAMPLES = """\
  python -m benchmarks prepared packs/minilm
  python -m benchmarks prepared packs/v4 --variant retrieval-int8 --repetitions 3"""

TIMES = ("start_s", "import_s", "load_s", "first_s")
MEMORY = ("after_import", "after_load", "after_texts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument("--variant", metavar="V", help="default: the first of int8, else the first")
    parser.add_argument(
        "--repetitions", type=int, default=7, metavar="N", help="of everything timed; default: %(default)s"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a variant plain and prepared, in turns.

    Raises:
        EmbedpackError: the pack is broken, or a worker failed.
    """
    pack = read_pack(options.pack)
    variants = pack.manifest.variants
    name = options.variant or next((name for name, item in variants.items() if item.weights == "int8"), min(variants))
    cores = options.threads or available_cores()
    job: dict[str, Any] = {"pack": str(pack.folder.resolve()), "variant": name, "threads": cores}
    graph = PackGraph.of(pack, variants[name])
    with tempfile.TemporaryDirectory() as cache:
        forms = {"plain": {"EMBEDPACK_CACHE": ""}, "prepared": {"EMBEDPACK_CACHE": cache}}
        preparing = in_fresh_process(SaveJob(**job), MODULE, forms["prepared"])
        cold: dict[str, list[dict[str, Any]]] = {form: [] for form in forms}
        # The first of each fills the system's cache of files.
        for _ in range(options.repetitions + 1):
            for form, environment in forms.items():
                cold[form].append(in_fresh_process(ColdJob(**job, started=time.time()), MODULE, environment))
        results = {form: _cold(found[1:]) for form, found in cold.items()}
        shared = {form: in_fresh_process(ShareJob(**job), MODULE, environment) for form, environment in forms.items()}
        counts = sorted({1, cores})
        runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
        peaks: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
        for _ in range(options.repetitions):
            for count in counts:
                runs[count].append(in_fresh_process(RunJob(**{**job, "threads": count}), MODULE, forms["prepared"]))
                peaks[count].append(measured_peak(count))
        return {
            "model": pack.manifest.name,
            "fingerprint": pack.manifest.source.fingerprint,
            "variant": name,
            "graph": graph.name,
            "weights_bytes": graph.weights.total,
            "repetitions": options.repetitions,
            "prepare": preparing,
            "cold": results,
            "two_processes": shared,
            "threads": {
                str(count): {unit: spread([item[unit] for item in found]) for unit in found[0]}
                for count, found in runs.items()
            },
            "peak": {str(count): found for count, found in peaks.items()},
            "idle": in_fresh_process(IdleJob(**job), MODULE, forms["prepared"]),
            "one_cpu": in_fresh_process(LimitedJob(**job), MODULE, forms["prepared"]),
        }


def _cold(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Spreads of times, medians of memory."""
    times = {name: spread([item[name] for item in found]) for name in TIMES}
    memory = {
        step: {kind: spread([item[step][kind] for item in found])["median"] for kind in ("rss", "anonymous")}
        for step in MEMORY
    }
    return {**times, "memory": memory, "peak_after_load": spread([item["peak_after_load"] for item in found])["median"]}


def anonymous_share(results: Mapping[str, Any], form: str) -> float:
    """Anonymous memory that loading added, as a share of the weights."""
    memory = results["cold"][form]["memory"]
    return (memory["after_load"]["anonymous"] - memory["after_import"]["anonymous"]) / results["weights_bytes"]


def table(results: Mapping[str, Any]) -> str:
    """Cold start, memory, then the rest."""
    gigabytes = results["weights_bytes"] / 1e9
    header = ("", "process start to first vector s", "import s", "load s", "load s/GB", "first vector s",
              "anonymous after load MB", "share of weights", "resident after texts MB")  # fmt: skip
    rows = []
    for form, found in results["cold"].items():
        memory = found["memory"]
        rows.append(
            (
                form,
                *(cell(found[name], 1, 3) for name in ("start_s", "import_s", "load_s")),
                f"{found['load_s']['median'] / gigabytes:.2f}",
                cell(found["first_s"], 1, 3),
                f"{memory['after_load']['anonymous'] / 1e6:.1f}",
                f"{anonymous_share(results, form):.2f}",
                f"{memory['after_texts']['rss'] / 1e6:.1f}",
            )
        )
    return "\n\n".join([text_table(header, rows), _sharing(results), _threads(results), _rest(results)])


def _sharing(results: Mapping[str, Any]) -> str:
    rows = [
        (form, *(f"{found[process][kind] / 1e6:.1f}" for process in ("first", "second") for kind in ("rss", "pss")))
        for form, found in results["two_processes"].items()
    ]
    return text_table(("two processes", "first: resident MB", "its share (Pss) MB", "second: resident", "share"), rows)


def _threads(results: Mapping[str, Any]) -> str:
    found = results["threads"]
    rows = [
        (
            count,
            *(
                text
                for kind in ("", "texts_")
                for text in (
                    cell(item[f"{kind}wall_s"], 1e3, 1),
                    cell(item[f"{kind}cpu_s"], 1e3, 1),
                    f"{found['1'][f'{kind}wall_s']['median'] / item[f'{kind}wall_s']['median']:.2f}",
                )
            ),
        )
        for count, item in found.items()
    ]
    header = ("threads", f"a text of {TOKENS} tokens: wall ms", "CPU ms", "speed-up",
              f"{TEXTS} of them: wall ms", "CPU ms", "speed-up")  # fmt: skip
    return "\n".join([text_table(header, rows), *at_once(results["peak"])])


def at_once(peaks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What the cores do at the same time: some hosts give two of them the arithmetic units of one."""
    reasons = [found["not_measured"] for measured in peaks.values() for found in measured if "not_measured" in found]
    if reasons:
        return [f"what cores do at once was not measured: {reasons[0]}"]
    alone = peaks["1"]
    lines = []
    for count, together in peaks.items():
        for name in alone[0] if count != "1" else ():
            ratios = [many[name]["gops"] / one[name]["gops"] for one, many in zip(alone, together, strict=True)]
            lines.append(f"{count} cores at once: {cell(spread(ratios), 1, 2)} of what one can do in {name}")
    return lines


def _rest(results: Mapping[str, Any]) -> str:
    preparing = results["prepare"]
    return "\n".join(
        [
            f"{results['variant']} ({results['graph']}), weights {results['weights_bytes'] / 1e6:.1f} MB",
            f"prepare: {preparing['seconds']:.1f} s, {preparing['disk_bytes'] / 1e6:.1f} MB on disk, peak "
            f"{preparing['peak_rss'] / 1e6:.0f} MB resident; batches of {preparing['token_budget']} tokens",
            f"idle: {results['idle']['cpu_share']:.4%} of a CPU",
            f"limited to one CPU: {results['one_cpu']['threads_added']} threads beside Python's own",
        ]
    )
