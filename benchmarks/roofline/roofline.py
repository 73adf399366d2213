"""Roofline of a pack: work of every node, the time that peak rates allow, and the measured time."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx

from benchmarks.arguments import add_number, add_pack
from benchmarks.fresh_process import in_fresh_process
from benchmarks.roofline import table as roofline_table
from benchmarks.roofline.groups import Group, groups_of
from benchmarks.roofline.host import Host, read_host
from benchmarks.roofline.profile import GRAPH, ProfileJob, ShapeProfile, profile
from benchmarks.roofline.rates import Rates, measured_rates
from benchmarks.roofline.target import Target
from benchmarks.roofline.totals import predicted
from benchmarks.speed.workloads import Shape, shape
from embedpack.errors import InputError, unknown
from embedpack.pack.folder import Pack, read_pack

SUMMARY = (
    "Work of every node of a graph (products, bytes, elements), the time that peak rates allow, and the measured time "
    "on one thread."
)
EXAMPLES = """\
  python -m benchmarks roofline packs/minilm
  python -m benchmarks roofline packs/minilm --weights fp32 --shape 1x128 --shape 16x16 --name minilm-fp32
  python -m benchmarks roofline packs/v4 --page 672x896         (a page of 672 x 896 pixels)
  python -m benchmarks roofline packs/minilm --graph-only       (floors alone, from the graph file; fast)
  python -m benchmarks roofline packs/minilm --host theirs.json (the time on the host where theirs.json was written)

Its results file has all that another host needs to know of this one: send it, and read it there with --host."""

SHAPES = ((1, 16), (1, 128), (16, 16), (32, 128))
table = roofline_table.table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    parser.set_defaults(threads=1)
    parser.add_argument("--weights", metavar="FORMAT", help="weights format; default: int8, or the first one")
    parser.add_argument("--task", metavar="TASK", help="task; default: the first one")
    shapes = "rows x tokens of a batch, may be repeated; default: those of 1x16, 1x128, 16x16, 32x128 that it takes"
    parser.add_argument("--shape", type=shape, action="append", metavar="RxT", help=shapes)
    add_number(parser, "--seconds", 3.0, "seconds of runs at each shape; at least 5 runs, at most 100", metavar="S")
    parser.add_argument("--graph-only", action="store_true", help="do not run the graph: floors, without times")
    page = "width x height of a page in pixels through the vision graph, in place of texts; may be repeated"
    parser.add_argument("--page", type=shape, action="append", metavar="WxH", help=page)
    host = "results file of this benchmark from another host: predict the time there"
    parser.add_argument("--host", type=Path, metavar="FILE", help=host)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the rates, profile the graph, and compute floors.

    Raises:
        InputError: the pack has no such task or weights format, or options do not fit together.
        EmbedpackError: the rates cannot be measured here, or the graph fails.
    """
    if options.threads != 1:
        raise InputError(f"--threads {options.threads}: peak rates are those of one core; leave it out")
    pack = read_pack(options.pack)
    task, variant = _variant(pack, options.task, options.weights)
    if options.page and options.shape:
        raise InputError("--page, --shape: a run measures pages or texts; leave one of them out")
    target = Target(pack, variant, bool(options.page))
    shapes: Sequence[Shape] = options.page or options.shape or _shapes(pack)
    sizes = [{name: feed.shape for name, feed in target.feeds(each, options.seed).items()} for each in shapes]
    there = None if options.host is None else read_host(options.host, pack.manifest.source.fingerprint, target.name)
    rates = measured_rates()
    with tempfile.TemporaryDirectory() as folder:
        graph = target.graph
        profiles: Sequence[ShapeProfile | None] = [None] * len(shapes)
        if not options.graph_only:
            profiles = _profiles(options, task, target, shapes, folder)
            graph = Path(folder) / GRAPH
        model = onnx.load(str(graph), load_external_data=False)
    rows = []
    for each, size, measured in zip(shapes, sizes, profiles, strict=True):
        groups = groups_of(model, size, Rates.of(rates), None if measured is None else measured.nodes)
        rows.append(_row(each, measured, groups, there))
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "variant": target.name,
        "rates": rates,
        "host": None if there is None else there.cpu,
        "shapes": rows,
    }


def _profiles(
    options: argparse.Namespace, task: str, target: Target, shapes: Sequence[Shape], folder: str
) -> list[ShapeProfile]:
    job = ProfileJob(
        pack=str(options.pack.resolve()),
        variant=target.variant,
        threads=1,
        task=task,
        shapes=list(shapes),
        pages=target.pages,
        seconds=options.seconds,
        seed=options.seed,
        folder=folder,
    )
    return msgspec.convert(in_fresh_process(profile, job), list[ShapeProfile])


def _shapes(pack: Pack) -> Sequence[Shape]:
    return [each for each in SHAPES if each[1] <= pack.manifest.text.max_tokens]


def _row(size: Shape, measured: ShapeProfile | None, groups: Sequence[Group], there: Host | None) -> dict[str, Any]:
    """Results at a shape, with the prediction for another host."""
    return {
        "rows": size[0],
        "tokens": size[1],
        "cpu_s": None if measured is None else measured.cpu_s,
        "runs": None if measured is None else measured.runs,
        "groups": msgspec.to_builtins(groups),
        "predicted": None if there is None else msgspec.to_builtins(predicted(groups, there.rates)),
        "cpu_s_there": None if there is None else there.cpu_s.get(size),
    }


def _variant(pack: Pack, task: str | None, weights: str | None) -> tuple[str, str]:
    """Task and name of the variant, merged or switchable."""
    tasks = tuple(pack.manifest.tasks)
    if task is not None and task not in tasks:
        raise InputError(unknown("--task", task, tasks))
    task = task or tasks[0]
    of_task = {
        variant.weights: name
        for name, variant in pack.manifest.variants.items()
        if variant.task in (None, task) and variant.device == "cpu"
    }
    if weights is not None and weights not in of_task:
        raise InputError(unknown("--weights", weights, of_task))
    return task, of_task[weights or ("int8" if "int8" in of_task else min(of_task))]
