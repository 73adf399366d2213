"""Measured time of every node of a graph on one thread, from onnxruntime's profile, in a process of its own."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.jobs import VariantJob
from benchmarks.roofline.target import Target
from embedpack.engine.loading import open_adapters
from embedpack.engine.session import Adapter, Array, Feeds, GraphSession, session_options
from embedpack.host.onnxruntime import ort
from embedpack.pack.folder import read_pack

WARM_UP, MIN_RUNS, MAX_RUNS = 2, 5, 100
KERNEL = "_kernel_time"
# Names of the optimized graph and of its weights.
GRAPH, WEIGHTS = "optimized.onnx", "optimized.bin"


class ProfileJob(VariantJob, frozen=True, kw_only=True):
    """Profile of a variant at some shapes, see `Target`, for some seconds each.

    `folder` is a folder to write the graph to, as onnxruntime has optimized it.
    """

    task: str | None
    shapes: list[tuple[int, int]]
    pages: bool
    seconds: float
    seed: int
    folder: str


class ShapeProfile(msgspec.Struct, frozen=True):
    """Measurements at a shape: median CPU seconds of a run, runs, and seconds of each node by its name."""

    cpu_s: float
    runs: int
    nodes: dict[str, float]


def profile(job: ProfileJob) -> list[ShapeProfile]:
    """Run the graph with and without a profile in turns, and return the measurements at each shape."""
    pack = read_pack(job.pack)
    variant = pack.manifest.variants[job.variant]
    target = Target(pack, job.variant, job.pages)
    turns = _Turns(
        GraphSession(target.graph, 1),
        _profiled_session(target.graph, Path(job.folder)),
        target.output,
        None if job.pages else open_adapters(pack, variant).get(job.task or ""),
    )
    times = [turns.run(target.feeds(shape, job.seed), job.seconds) for shape in job.shapes]
    events = json.loads(Path(turns.profiled.end_profiling()).read_text("utf-8"))
    runs = iter(node_times(events))
    results = []
    for cpu_s in times:
        nodes = [next(runs) for _ in range(WARM_UP + len(cpu_s))][WARM_UP:]
        results.append(ShapeProfile(float(np.median(cpu_s)), len(cpu_s), _typical(nodes)))
    return results


def _profiled_session(graph: Path, folder: Path) -> ort.InferenceSession:
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class _Turns:
    """Sessions of a graph without and with a profile, which run in turns."""

    plain: GraphSession
    profiled: ort.InferenceSession
    output: str
    adapter: Adapter | None

    def run(self, feeds: Feeds, seconds: float) -> list[float]:
        """CPU seconds of each run without a profile, those of warming up left out."""
        times: list[float] = []
        begin = time.perf_counter()
        for number in range(WARM_UP + MAX_RUNS):
            if number >= WARM_UP + MIN_RUNS and time.perf_counter() - begin > seconds:
                break
            start = time.process_time()
            self.plain.run([self.output], feeds, self.adapter)
            times.append(time.process_time() - start)
            self._run_profiled(feeds)
        return times[WARM_UP:]

    def _run_profiled(self, feeds: Feeds) -> list[Array]:
        options = ort.RunOptions()
        if self.adapter is not None:
            self.adapter.activate(options)
        results: list[Array] = self.profiled.run([self.output], dict(feeds), options)
        return results


def node_times(events: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """Seconds of each node by name, run by run; of a node with a subgraph without those of the nodes in it."""
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith(KERNEL)]
    runs = [event for event in events if event["name"] == "model_run"]
    for run in sorted(runs, key=lambda event: int(event["ts"])):
        times: defaultdict[str, float] = defaultdict(float)
        open_nodes: list[Mapping[str, Any]] = []
        inside = [event for event in nodes if run["ts"] <= event["ts"] <= run["ts"] + run["dur"]]
        for event in sorted(inside, key=lambda event: (event["ts"], -event["dur"])):
            while open_nodes and open_nodes[-1]["ts"] + open_nodes[-1]["dur"] <= event["ts"]:
                open_nodes.pop()
            times[_name(event)] += 1e-6 * event["dur"]
            if open_nodes and open_nodes[-1]["args"]["op_name"] in ("If", "Loop", "Scan"):
                times[_name(open_nodes[-1])] -= 1e-6 * event["dur"]
            open_nodes.append(event)
        yield dict(times)


def _name(event: Mapping[str, Any]) -> str:
    return str(event["name"]).removesuffix(KERNEL)


def _typical(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of the faster half of the times of each node.

    The clock of a profile has whole microseconds, and other programs that take the core only make a node slower.
    """
    names = {name for run in runs for name in run}
    half = (len(runs) + 1) // 2
    return {name: float(np.mean(sorted(run.get(name, 0.0) for run in runs)[:half])) for name in names}
