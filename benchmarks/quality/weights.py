"""Weights: the change of vectors and rankings by int8, and by int4 with three rounding methods."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.retrieval_sets import read_retrieval_sets
from embedpack import Embedder, InputError
from embedpack.pack.folder import read_pack
from embedpack.pack.strict import WeightsFormat
from embedpack_export.arrays import Float64
from embedpack_export.commands.adapter_option import parse_adapters
from embedpack_export.evaluation.results import SetResult, Setting
from embedpack_export.evaluation.scoring.encoding import VectorPair, encode_set
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.scoring.set_scorers import RetrievalScorer
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.bootstrap import RESAMPLES, interval, resampled_means
from embedpack_export.metrics.cosines import row_cosines, summarise_cosines
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import DEFAULT_INT4_METHOD, LARGEST_LOSS, ExportSettings
from embedpack_export.quantization.gptq import RoundingMethod

SUMMARY = (
    "Vectors, rankings and bits a weight of int8, and of int4 with and without calibration, compared with float32."
)
EXAMPLES = """\
  python -m benchmarks weights models/all-MiniLM-L6-v2 --adapter retrieval=adapters --data data/eval
  python -m benchmarks weights models/all-MiniLM-L6-v2 --data data/eval --set code/nl2bash --limit 50 --name quick"""

SETS = ("code/nl2bash", "code/cosqa-dev", "retrieval/debian-desc-en", "retrieval/xquad-en", "long/manpages-en")
# Weights in a byte of a tensor of values.
WEIGHTS_A_BYTE: Mapping[str, int] = {"int8": 1, "int4": 2}

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class RoundedFormat:
    """A weights format and a rounding method; `name` is its key in the results."""

    name: str
    weights: WeightsFormat
    int4_method: RoundingMethod = DEFAULT_INT4_METHOD


FP32 = RoundedFormat("fp32", "fp32")
# Format, scales and offsets of the three int4 roundings are the same: only the integers and the biases differ.
RTN, SHIPPED = RoundedFormat("int4 rtn", "int4", "rtn"), RoundedFormat("int4", "int4")
ROUNDINGS = (RoundedFormat("int8", "int8"), RTN, RoundedFormat("int4 gptq", "int4", "gptq"), SHIPPED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of the full-precision model")
    parser.add_argument("--adapter", metavar="TASK=DIR", help="merge this adapter")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set, for a quick run")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Export with every rounding and measure.

    Raises:
        InputError: an option or a set cannot be used.
        MissingExtraError: ir-measures is not installed.
    """
    sets = read_retrieval_sets(options.data, options.sets or SETS, options.limit)
    with _exported(FP32, options) as pack:
        exact = _encode(pack, sets, options.threads)
    scorers = [
        RetrievalScorer(evaluation_set, QrelsScorer(evaluation_set), pair)
        for evaluation_set, pair in zip(sets, exact, strict=True)
    ]
    methods, results = {}, {}
    for rounding in ROUNDINGS:
        logger.info("%s", rounding.name)
        with _exported(rounding, options) as pack:
            vectors, bits = _encode(pack, sets, options.threads), _bits(pack)
        setting = Setting(rounding.name, "single", vectors[0].left.dimensions, "float32")
        results[rounding.name] = [
            scorer.score(setting, pair.left, pair.right) for scorer, pair in zip(scorers, vectors, strict=True)
        ]
        methods[rounding.name] = {
            "bits_a_weight": bits,
            "cosine": asdict(summarise_cosines(_cosines(vectors, exact))),
            **_compared(results[rounding.name], options.seed),
        }
    gains = [
        shipped.by_query.scores - rtn.by_query.scores
        for shipped, rtn in zip(results[SHIPPED.name], results[RTN.name], strict=True)
    ]
    return {
        "sets": {
            evaluation_set.name: {
                "documents": len(evaluation_set.documents),
                "queries": len(evaluation_set.queries),
                "fp32_ndcg_at_10": _rounded(scorer.full_reference.score),
            }
            for evaluation_set, scorer in zip(sets, scorers, strict=True)
        },
        "limit": options.limit,
        "methods": methods,
        "gptaq_minus_rtn": _difference(gains, options.seed),
    }


@contextmanager
def _exported(rounding: RoundedFormat, options: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder of a pack with one variant."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ExportSettings(
            checkpoint=options.checkpoint,
            output=Path(folder) / "pack",
            adapters=parse_adapters([] if options.adapter is None else [options.adapter]),
            weights=(rounding.weights,),
            int4_method=rounding.int4_method,
            max_loss=LARGEST_LOSS,
            reference="fp32 graph",
        )
        export(settings)
        yield settings.output


def _encode(pack: Path, sets: Sequence[RetrievalSet], threads: int | None) -> list[VectorPair]:
    model = Embedder(pack, threads=threads)
    if model.task is None:
        raise InputError(f"the checkpoint has the tasks {', '.join(model.tasks)}; name one with --adapter TASK=DIR")
    return [encode_set(model, model.task, evaluation_set) for evaluation_set in sets]


def _cosines(vectors: Sequence[VectorPair], exact: Sequence[VectorPair]) -> Float64:
    """Return the cosines of queries and documents of all sets."""
    pairs = [
        sides
        for pair, reference in zip(vectors, exact, strict=True)
        for sides in ((pair.left, reference.left), (pair.right, reference.right))
    ]
    return np.concatenate([row_cosines(side.codes, reference.codes) for side, reference in pairs])


def _bits(pack: Path) -> dict[str, float]:
    """Return the stored bits of a quantized weight, its part of the scales included: of all, and without embeddings."""
    (variant,) = read_pack(pack).manifest.variants.values()
    tensors = {
        str(value.name): value.const_value
        for value in ir.load(pack / variant.graph).graph.initializers.values()
        if value.const_value is not None
    }
    sizes = {"linear": (0, 0), "embeddings": (0, 0)}
    for name, tensor in tensors.items():
        matrix, _, kind = name.rpartition(".")
        if kind not in WEIGHTS_A_BYTE:
            continue
        parts = [f"{matrix}.{part}" for part in ("scales", "steps", "sums")]
        stored = tensor.nbytes + sum(tensors[part].nbytes for part in parts if part in tensors)
        group = "embeddings" if "embed" in matrix else "linear"
        bits, weights = sizes[group]
        sizes[group] = bits + 8 * stored, weights + tensor.nbytes * WEIGHTS_A_BYTE[kind]
    bits, weights = (sum(column) for column in zip(*sizes.values(), strict=True))
    if not weights:
        return {}
    return {"all": round(bits / weights, 3), "linear": round(sizes["linear"][0] / sizes["linear"][1], 3)}


def _compared(results: Sequence[SetResult], seed: int) -> dict[str, Any]:
    """Return overlap and difference over all sets and for each set."""
    overlaps = {result.set: result.top_10_overlap or 0.0 for result in results}
    return {
        "top_10_overlap": round(float(np.mean(list(overlaps.values()))), 4),
        "difference": _difference([result.by_query.differences for result in results], seed),
        "by_set": {
            result.set: {
                "difference": _difference([result.by_query.differences], seed),
                "top_10_overlap": round(overlaps[result.set], 4),
            }
            for result in results
        },
    }


def _difference(differences: Sequence[Float64], seed: int) -> dict[str, Any]:
    """Return the mean over sets of the difference in nDCG@10, with its 95 % interval."""
    generator = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    for values in differences:
        total += resampled_means(values[:, None], generator)[:, 0]
    low, high = interval(total / len(differences))
    mean = np.mean([values.mean() for values in differences])
    return {"mean": _rounded(float(mean)), "interval_95": [_rounded(low), _rounded(high)]}


def _rounded(value: float) -> float:
    return round(value, 3)


def table(results: Mapping[str, Any]) -> str:
    """Format the roundings over all sets, then set by set."""
    header = ("weights", "bits", "cosine mean", "p1", "min", "top 10", "nDCG@10", "95 % interval")
    rows: list[tuple[str, ...]] = []
    by_set: list[tuple[str, ...]] = []
    for name, method in results["methods"].items():
        cosine = (f"{method['cosine'][key]:.5f}" for key in ("mean", "p1", "min"))
        bits = f"{method['bits_a_weight']['all']:.2f}"
        rows.append((name, bits, *cosine, f"{method['top_10_overlap']:.1%}", *_cells(method["difference"])))
        for set_name, figures in method["by_set"].items():
            by_set.append((set_name, name, f"{figures['top_10_overlap']:.1%}", *_cells(figures["difference"])))
    gain = " ".join(_cells(results["gptaq_minus_rtn"]))
    return "\n\n".join(
        [
            text_table(header, rows),
            text_table(("set", "weights", "top 10", "nDCG@10", "95 % interval"), sorted(by_set)),
            f"{SHIPPED.name} minus {RTN.name}: {gain}",
        ]
    )


def _cells(difference: Mapping[str, Any]) -> tuple[str, str]:
    low, high = difference["interval_95"]
    return f"{difference['mean']:+.3f}", f"[{low:+.3f}, {high:+.3f}]"
