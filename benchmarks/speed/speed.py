"""Speed benchmark: variants and optionally peers, on fixed shapes and on texts of mixed lengths."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number, add_pack
from benchmarks.fresh_process import in_fresh_process
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.setup import PeerOptions, set_up_peers
from benchmarks.speed import gpu
from benchmarks.speed import table as speed_table
from benchmarks.speed.peak import best, measured_peak, product_weights
from benchmarks.speed.rows import FIXED, IN_PARTS, OURS, Rows
from benchmarks.speed.runs import Run, run_interleaved
from benchmarks.speed.worker import Batching, SpeedJob, measure
from benchmarks.speed.workloads import Workload, shape, write_workloads
from embedpack.engine.encoder import TOKEN_BUDGET
from embedpack.errors import InputError, unknown
from embedpack.host.cores import available_cores
from embedpack.pack.folder import Pack, read_pack
from embedpack_export.evaluation.provenance import ROOT

SUMMARY = (
    "Time of a call on fixed shapes, and tokens per second on texts of mixed lengths; optionally of other programs too."
)
EXAMPLES = """\
  python -m benchmarks speed packs/minilm
  python -m benchmarks speed packs/minilm --threads 4 --repetitions 9
  python -m benchmarks speed packs/minilm --repetitions 1 --seconds 0.2 --name quick
  python -m benchmarks speed packs/minilm --peers --checkpoint all-MiniLM-L6-v2 --adapter retrieval=DIR --threads 1
  python -m benchmarks speed packs/mine --device cuda --checkpoint models/mine
  python -m benchmarks speed packs/minilm --peers --peer "torch fp32" --peer "OpenVINO int8" --checkpoint ..."""

SHAPES = ((1, 16), (1, 128), (32, 16), (32, 128))
# Load average above which times depend on other programs.
MAX_LOAD = 0.2
BATCHING: Mapping[str, Batching] = {"": "one", IN_PARTS: "parts", OURS: "ours", FIXED: "fixed"}

logger = logging.getLogger("benchmarks")


def table(results: Mapping[str, Any]) -> str:
    """Tables of the results on a CPU, or that on a GPU."""
    return gpu.table(results) if "card" in results else speed_table.table(results)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    parser.add_argument("--task", metavar="TASK", help="task to measure; required if the pack has several")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: fp16 and int4 weights on a GPU, next to torch and others; needs --checkpoint; default: cpu",
    )
    add_number(parser, "--repetitions", 5, "repetitions of every measurement")
    add_number(parser, "--seconds", 1.0, "seconds of calls in a process", metavar="S")
    shapes = "rows x tokens of a batch, may be repeated; default: 1x16 to 32x128"
    parser.add_argument("--shape", type=shape, action="append", metavar="RxT", help=shapes)
    parser.add_argument("--without-mixed", action="store_true", help="do not measure texts of mixed lengths")
    parser.add_argument("--peers", action="store_true", help="measure other programs too")
    programs = ", ".join(dict.fromkeys(peer.program for peer in PEERS))
    peers = f"program to measure in all of its forms, or PROGRAM, FORM; may be repeated; default: all of {programs}"
    parser.add_argument("--peer", action="append", default=[], metavar="NAME", help=peers)
    parser.add_argument(
        "--environments",
        type=Path,
        default=ROOT / ".peers",
        metavar="DIR",
        help="with --peers: folder of their environments and models, 6 GB and more; default: .peers",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="with --peers or --device cuda: checkpoint that the pack was exported from",
    )
    adapters = "with --peers: adapter, as at the export"
    parser.add_argument("--adapter", type=_adapter, action="append", default=[], metavar="TASK=DIR", help=adapters)


def _adapter(text: str) -> tuple[str, Path]:
    task, equals, folder = text.partition("=")
    if not (task and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r}: write TASK=DIR")
    return task, Path(folder)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants of a task and the peers, interleaved.

    Raises:
        InputError: the pack has no such task, or options contradict each other.
        EmbedpackError: a worker on the pack failed, or torch cannot load the checkpoint.
    """
    if options.device == "cuda":
        if options.peers or options.peer or options.adapter or options.task or options.without_mixed:
            raise InputError("--device cuda goes with --checkpoint, --shape, --repetitions and --seconds alone")
        return gpu.run(options)
    if options.peers != (options.checkpoint is not None):
        raise InputError("--peers and --checkpoint go together: peers run the model that the pack was exported from")
    if not options.peers and (options.peer or options.adapter):
        raise InputError("--peer and --adapter need --peers, which is missing")
    pack = read_pack(options.pack)
    task = _task(pack, options.task)
    variants: dict[str, str] = {
        variant.weights: name for name, variant in pack.manifest.variants.items() if variant.task == task
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder, shapes = Path(scratch), options.shape or SHAPES
        workloads = write_workloads(pack, folder, shapes, mixed=not options.without_mixed, seed=options.seed)
        peers = None
        if options.peers:
            adapters = dict(options.adapter)
            chosen = PeerOptions(options.peer, options.environments, options.checkpoint, adapters, task)
            peers = set_up_peers(chosen, pack, workloads, folder)
        load = os.getloadavg()[0]
        if load > MAX_LOAD:
            logger.warning("this host is busy (load %.1f): times are unreliable, ratios less so", load)
        peak = measured_peak()
        runs = list(_runs(options, list(variants.values()), workloads, folder))
        if peers is not None:
            runs += peers.runs(workloads, _threads(options), options.seconds, folder)
        measured, failed = run_interleaved(runs, options.repetitions)
        peak = best(peak, measured_peak())
        operations = None
        if "int8" in variants:
            operations = 2 * product_weights(pack, pack.manifest.variants[variants["int8"]].graph)
        rows = Rows(measured, variants, peers, operations, peak).all()
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "exported_with": pack.manifest.export.tools,
        "repetitions": options.repetitions,
        "peak_of_a_core": peak,
        **_by_kind([row for row in rows if "variant" in row]),
        "peers": None
        if peers is None
        else {**peers.describe(), "failed": failed, **_by_kind([row for row in rows if "peer" in row])},
    }


def _threads(options: argparse.Namespace) -> list[int]:
    return sorted({1, options.threads or available_cores()})


def _by_kind(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {"shapes": [row for row in rows if "rows" in row], "mixed": [row for row in rows if "batching" in row]}


def _task(pack: Pack, task: str | None) -> str:
    tasks = tuple(pack.manifest.tasks)
    if task not in tasks and (task is not None or len(tasks) > 1):
        raise InputError(unknown("--task", task, tasks))
    return task or tasks[0]


def _runs(
    options: argparse.Namespace, variants: Sequence[str], workloads: Sequence[Workload], folder: Path
) -> Iterator[Run]:
    """Runs of the pack: fixed shapes on one thread and on all, mixed lengths on all with both batchings.

    A shape of more tokens than the budget of `Embedder` runs as one batch and in parts.
    """
    pack, threads = str(options.pack.resolve()), _threads(options)
    for workload in workloads:
        for count in threads if workload.shape else threads[-1:]:
            large = ("", IN_PARTS) if workload.tokens > TOKEN_BUDGET else ("",)
            for batching in large if workload.shape else (OURS, FIXED):
                for number, variant in enumerate(variants):
                    vectors = str(folder / f"pack-{number}-{workload.name}-{count}-{BATCHING[batching]}.npy")
                    job = SpeedJob(
                        pack=pack,
                        variant=variant,
                        threads=count,
                        inputs=workload.path,
                        vectors=vectors,
                        seconds=options.seconds,
                        batching=BATCHING[batching],
                    )
                    call = partial(in_fresh_process, measure, job)
                    yield Run(variant, False, workload, count, batching, vectors, call)
