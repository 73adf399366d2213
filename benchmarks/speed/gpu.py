"""Speed and memory of fp16 and int4 weights on a GPU, next to torch and sentence-transformers on the same card."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from benchmarks.fresh_process import in_fresh_process
from benchmarks.speed.gpu_worker import GpuJob, Input, Program, RateJob, measure, measure_rate
from benchmarks.speed.runs import reason_of
from benchmarks.speed.workloads import Workload, write_workloads
from benchmarks.spreads import cell, spread
from embedpack import EmbedpackError
from embedpack.errors import InputError
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.strict import WeightsFormat
from embedpack.progress import Progress
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.cosines import row_cosines, summarise_cosines

SHAPES = ((1, 128), (32, 128), (256, 128), (32, 512))
# Programs that run variants of the pack, by weights format; the cosines are those with the first.
OF_PACK: Mapping[WeightsFormat, Program] = {"fp16": "embedpack fp16", "int4": "embedpack int4"}
OURS = OF_PACK["fp16"]
# Programs that take token ids of a fixed shape, and those that take texts of mixed lengths.
OF_IDS: tuple[Program, ...] = (*OF_PACK.values(), "torch fp16", "torch bf16")
OF_TEXTS: tuple[Program, ...] = (*OF_PACK.values(), "sentence-transformers fp16")


@dataclass(frozen=True)
class GpuOptions:
    """Options of a measurement; `shapes` empty: SHAPES."""

    checkpoint: Path
    device: Literal["cpu", "cuda"]
    shapes: Sequence[tuple[int, int]]
    repetitions: int
    seconds: float
    seed: int


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the variants for GPUs; InputError without a checkpoint or a variant with fp16 weights."""
    if options.checkpoint is None:
        raise InputError("--device cuda needs --checkpoint, the model that the pack was exported from")
    given = GpuOptions(
        options.checkpoint, "cuda", options.shape or (), options.repetitions, options.seconds, options.seed
    )
    return measured(read_pack(options.pack), given)


def measured(pack: Pack, options: GpuOptions) -> dict[str, Any]:
    """Results of all programs; those that fail are named with the reason."""
    variants = {OF_PACK[each.weights]: name for name, each in pack.manifest.variants.items() if each.device == "cuda"}
    if OURS not in variants:
        raise InputError(f"{pack.folder}: has no variant with fp16 weights; export it with --weights fp16")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workloads = write_workloads(pack, folder, options.shapes or SHAPES, mixed=True, seed=options.seed)
        rate = in_fresh_process(measure_rate, RateJob(device=options.device, seconds=options.seconds))
        times, failed = _times(pack, variants, options, workloads, folder)
        operations = 2 * product_weights(pack, variants[OURS])
        rows = [
            _row(program, workload, found, folder) | _share(workload, _seconds(found), operations, rate)
            for (program, workload), found in times.items()
        ]
    return {
        "device": options.device,
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "repetitions": options.repetitions,
        "card": rate,
        "rows": rows,
        "failed": failed,
    }


def product_weights(pack: Pack, variant: str) -> int:
    """Number of values of all float16 matrices in products of a variant's graph."""
    model = onnx.load(str(pack.path(pack.manifest.variants[variant].graph)), load_external_data=False)
    shapes = {
        tensor.name: tensor.dims for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16
    }
    names = [node.input[1] for node in model.graph.node if node.op_type == "MatMul"]
    return sum(math.prod(shapes[name]) for name in names if name in shapes)


# Results of `measure` by program and workload, one of each repetition.
Found: TypeAlias = Sequence[Mapping[str, Any]]
Times = dict[tuple[Program, Workload], list[Mapping[str, Any]]]


def _times(
    pack: Pack, variants: Mapping[Program, str], options: GpuOptions, workloads: Sequence[Workload], folder: Path
) -> tuple[Times, dict[str, str]]:
    """Results by program and workload, and the reasons of programs that failed."""
    times: Times = {}
    failed: dict[str, str] = {}
    programs = [name for name in dict.fromkeys((*OF_IDS, *OF_TEXTS)) if name not in {*OF_PACK.values()} - {*variants}]
    with Progress("measuring", options.repetitions * len(programs)) as progress:
        for _ in range(options.repetitions):
            for program in (each for each in programs if each not in failed):
                taken = list(_of_program(program, workloads))
                job = GpuJob(
                    program=program,
                    device=options.device,
                    pack=str(pack.folder.resolve()),
                    variant=variants.get(program, variants[OURS]),
                    checkpoint=str(options.checkpoint.resolve()),
                    inputs=[
                        Input(each.path, str(_vectors(folder, program, each)), each.shape is None) for each in taken
                    ],
                    seconds=options.seconds,
                )
                try:
                    results = in_fresh_process(measure, job)
                except EmbedpackError as error:
                    if program == OURS:
                        raise
                    failed[program] = reason_of(error)
                    results = []
                for workload, result in zip(taken, results, strict=False):
                    times.setdefault((program, workload), []).append(result)
                progress.advance(1)
    return {key: found for key, found in times.items() if key[0] not in failed}, failed


def _of_program(program: Program, workloads: Sequence[Workload]) -> Iterator[Workload]:
    """Workloads that a program takes."""
    for workload in workloads:
        if program in (OF_TEXTS if workload.shape is None else OF_IDS):
            yield workload


def _vectors(folder: Path, program: Program, workload: Workload) -> Path:
    return folder / f"{program}-{workload.name}.npy".replace(" ", "-")


def _seconds(found: Found) -> list[float]:
    return [result["wall_s"] for result in found]


def _row(program: Program, workload: Workload, found: Found, folder: Path) -> dict[str, Any]:
    """Time, speed and memory of a program, and the cosine of its vectors with ours."""
    ours, vectors = (np.load(_vectors(folder, each, workload)) for each in (OURS, program))
    cosines = summarise_cosines(row_cosines(ours, vectors), digits=6)
    used, seconds = [result["gpu_bytes"] for result in found], _seconds(found)
    return {
        "program": program,
        "workload": workload.name,
        "wall_s": spread(seconds),
        "tokens_per_s": spread([workload.tokens / each for each in seconds]),
        "gpu_bytes": None if None in used else max(used),
        "cosine": {"mean": cosines.mean, "min": cosines.min},
    }


def _share(workload: Workload, seconds: Sequence[float], operations: int, rate: Mapping[str, Any]) -> dict[str, Any]:
    """Share of the rate of the card that the products of the model reach, without attention."""
    return {
        "share_of_rate": spread([operations * workload.tokens / each / rate["operations_per_s"] for each in seconds])
    }


def table(results: Mapping[str, Any]) -> str:
    """Table of the programs, with the rate of the card."""
    number = partial(cell, digits=0)
    rows = [
        (
            row["workload"],
            row["program"],
            cell(row["wall_s"], 1000, 2),
            number(row["tokens_per_s"], 1),
            cell(row["share_of_rate"], 100, 1),
            "-" if row["gpu_bytes"] is None else f"{row['gpu_bytes'] / 1e6:.0f}",
            f"{row['cosine']['min']:.5f}",
        )
        for row in results["rows"]
    ]
    header = ("workload", "program", "ms per call", "tokens / s", "% of the card", "MB", "lowest cosine to ours")
    card = results["card"]
    parts = [
        f"{card['name']}: {card['operations_per_s'] / 1e12:.1f} TFLOP/s in a product of float16 matrices",
        text_table(header, rows),
        *(f"{program} failed: {reason}" for program, reason in results["failed"].items()),
    ]
    return "\n\n".join(parts)
