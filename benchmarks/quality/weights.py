"""Weights: what int8, and int4 rounded in several ways, change in vectors and in what they find."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.quality.metrics import cosines, ndcg_at_10
from embedpack import Embedder, Embeddings, InputError, similarity
from embedpack.pack.folder import read_pack
from embedpack.pack.manifest import WeightsFormat
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_retrieval_sets
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.bootstrap import interval, resampled_means
from embedpack_export.metrics.rankings import Float64, top_columns, top_k_overlap
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import DEFAULT_INT4_METHOD, LARGEST_LOSS, ExportSettings
from embedpack_export.quantization.gptq import RoundingMethod

SUMMARY = "int8, and int4 with and without calibration, against float32: vectors, rankings, bits a weight."
EXAMPLES = """\
  python -m benchmarks weights models/all-MiniLM-L6-v2 --adapter retrieval=adapters --data data/eval
  python -m benchmarks weights models/all-MiniLM-L6-v2 --data data/eval --set code/nl2bash --limit 50 --name trial"""

SETS = ("code/nl2bash", "code/cosqa-dev", "retrieval/debian-desc-en", "retrieval/xquad-en", "long/manpages-en")
# Weights in bytes of a tensor of values.
VALUES: Mapping[str, int] = {"int8": 1, "int4": 2}

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Way:
    """A way to write the matrices."""

    name: str
    weights: WeightsFormat
    int4_method: RoundingMethod = DEFAULT_INT4_METHOD


EXACT = Way("fp32", "fp32")
# The same format, scales and offsets in all three int4 ways: only the integers and the biases differ.
NEAREST, SHIPPED = Way("int4, to the nearest", "int4", "rtn"), Way("int4", "int4")
WAYS = (Way("int8", "int8"), NEAREST, Way("int4, fitted only", "int4", "gptq"), SHIPPED)


@dataclass(frozen=True)
class Answer:
    """What a way gives on one set: vectors of queries and documents, the ten best, nDCG@10 of each query."""

    queries: Embeddings
    documents: Embeddings
    ranks: Any
    ndcg: Float64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of the full-precision model")
    parser.add_argument("--adapter", metavar="TASK=DIR", help="merge this adapter")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set and few documents: a trial")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Export in every way and measure.

    Raises:
        InputError: an option or a set cannot be used.
        MissingExtraError: ir-measures is not installed.
    """
    sets = read_retrieval_sets(options.data, options.sets or SETS, options.limit)
    exact = _answers(EXACT, sets, options)[0]
    found, bits = {}, {}
    for way in WAYS:
        found[way.name], bits[way.name] = _answers(way, sets, options)
    return {
        "sets": {
            item.name: {
                "documents": len(item.documents),
                "queries": len(item.queries),
                "fp32_ndcg_at_10": _rounded(answer.ndcg.mean()),
            }
            for item, answer in zip(sets, exact, strict=True)
        },
        "limit": options.limit,
        "ways": {
            name: {"bits_a_weight": bits[name], **_compare(sets, answers, exact, options.seed)}
            for name, answers in found.items()
        },
        "shipped_less_nearest": _difference(found[SHIPPED.name], found[NEAREST.name], options.seed),
    }


def _answers(
    way: Way, sets: Sequence[RetrievalSet], options: argparse.Namespace
) -> tuple[list[Answer], dict[str, float]]:
    """Of one way on all sets, and its bits a weight."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ExportSettings(
            checkpoint=options.checkpoint,
            output=Path(folder) / "pack",
            adapters=_adapter(options.adapter),
            weights=(way.weights,),
            int4_method=way.int4_method,
            max_loss=LARGEST_LOSS,
            reference="fp32 graph",
        )
        export(settings)
        (described,) = read_pack(settings.output).manifest.variants.values()
        model = Embedder(settings.output, threads=options.threads)
        answers = []
        for item in sets:
            logger.info("%s: %s", way.name, item.name)
            queries, documents = (
                model.encode(list(texts.values()), prompt_name=kind if kind in model.prompts else None)
                for texts, kind in ((item.queries, "query"), (item.documents, "passage"))
            )
            ranks = top_columns(similarity(queries, documents))
            answers.append(Answer(queries, documents, ranks, ndcg_at_10(ranks, item)))
        return answers, _bits(settings.output / described.graph)


def _adapter(pair: str | None) -> dict[str, Path]:
    if pair is None:
        return {}
    task, separator, folder = pair.partition("=")
    if not separator or not task or not folder:
        raise InputError(f"--adapter {pair}: expected TASK=DIR, e.g. retrieval=adapters")
    return {task: Path(folder)}


def _bits(graph: Path) -> dict[str, float]:
    """Stored bits of a quantized weight, its part of the scales included: of all matrices, and of the tables."""
    tensors = {
        str(value.name): value.const_value
        for value in ir.load(graph).graph.initializers.values()
        if value.const_value is not None
    }
    stored, weights, table = 0, 0, {"bits": 0, "weights": 0}
    for name, tensor in tensors.items():
        matrix, _, kind = name.rpartition(".")
        if kind not in VALUES:
            continue
        parts = [
            tensors[f"{matrix}.{part}"].nbytes for part in ("scales", "steps", "sums") if f"{matrix}.{part}" in tensors
        ]
        size, count = 8 * (tensor.nbytes + sum(parts)), tensor.nbytes * VALUES[kind]
        stored, weights = stored + size, weights + count
        if "embed" in matrix:
            table = {"bits": table["bits"] + size, "weights": table["weights"] + count}
    if not weights:
        return {}
    linear = (stored - table["bits"]) / (weights - table["weights"])
    return {"all": round(stored / weights, 3), "linear": round(linear, 3)}


def _compare(
    sets: Sequence[RetrievalSet], found: Sequence[Answer], exact: Sequence[Answer], seed: int
) -> dict[str, Any]:
    """How far a way is from float32, over all sets and in each."""
    pairs = list(zip(found, exact, strict=True))
    vectors, expected = (
        np.concatenate([side.decode() for answer in answers for side in (answer.queries, answer.documents)])
        for answers in (found, exact)
    )
    return {
        "cosine": asdict(cosines(vectors, expected)),
        "top_10_overlap": round(float(np.mean([top_k_overlap(a.ranks, b.ranks) for a, b in pairs])), 4),
        "difference": _difference(found, exact, seed),
        "by_set": {
            item.name: {
                "difference": _difference([a], [b], seed),
                "top_10_overlap": round(top_k_overlap(a.ranks, b.ranks), 4),
            }
            for item, (a, b) in zip(sets, pairs, strict=True)
        },
    }


def _difference(found: Sequence[Answer], other: Sequence[Answer], seed: int) -> dict[str, Any]:
    """Mean over the sets of the difference in nDCG@10, with its 95 % interval: queries drawn anew within each set."""
    differences = [a.ndcg - b.ndcg for a, b in zip(found, other, strict=True)]
    rng = np.random.default_rng(seed)
    low, high = interval(np.mean([resampled_means(values[:, None], rng)[:, 0] for values in differences], axis=0))
    mean = np.mean([values.mean() for values in differences])
    return {"mean": _rounded(mean), "interval_95": [_rounded(low), _rounded(high)]}


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 3)


def table(results: Mapping[str, Any]) -> str:
    """The ways over all sets, then set by set."""
    header = ("weights", "bits", "cosine mean", "p1", "min", "top 10", "nDCG@10", "95 % interval")
    rows: list[tuple[str, ...]] = []
    by_set: list[tuple[str, ...]] = []
    for name, found in results["ways"].items():
        cosine = (f"{found['cosine'][key]:.5f}" for key in ("mean", "p1", "min"))
        bits = f"{found['bits_a_weight']['all']:.2f}"
        rows.append((name, bits, *cosine, f"{found['top_10_overlap']:.1%}", *_cells(found["difference"])))
        for item, one in found["by_set"].items():
            by_set.append((item, name, f"{one['top_10_overlap']:.1%}", *_cells(one["difference"])))
    gain = " ".join(_cells(results["shipped_less_nearest"]))
    return "\n\n".join(
        [
            text_table(header, rows),
            text_table(("set", "weights", "top 10", "nDCG@10", "95 % interval"), sorted(by_set)),
            f"{SHIPPED.name} less {NEAREST.name}: {gain}",
        ]
    )


def _cells(difference: Mapping[str, Any]) -> tuple[str, str]:
    low, high = difference["interval_95"]
    return f"{difference['mean']:+.3f}", f"[{low:+.3f}, {high:+.3f}]"
