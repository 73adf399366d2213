"""Multi-vectors: the part of float32's nDCG@10 that token pooling and codes keep."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.retention import retention, retention_cells
from benchmarks.retrieval_sets import read_retrieval_sets
from embedpack import Embedder, InputError, similarity
from embedpack.pack.task_codec import TaskCodec
from embedpack.vectors.codes import DTYPES, Precision, code_width
from embedpack_export.evaluation.results import SetResult, Setting
from embedpack_export.evaluation.scoring.encoding import encode_set, encode_set_multi, inspect_inputs
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.scoring.set_scorers import MultiVectorScorer
from embedpack_export.evaluation.scoring.task_evaluation import multi_results
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.rankings import top_columns

SUMMARY = "nDCG@10 of pooled and coded multi-vectors, compared with float32."
EXAMPLES = """\
  python -m benchmarks multi packs/minilm --task retrieval --data data/eval
  python -m benchmarks multi packs/minilm --task code --data data/eval --set code/nl2bash --set code/cosqa-dev"""

SETS = ("code/nl2bash", "code/cosqa-dev", "retrieval/debian-desc-en", "long/manpages-en")
POOL_FACTORS = (1, 2, 3, 4, 9)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "4bit", "2bit", "ternary", "binary")

logger = logging.getLogger("benchmarks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="a pack with multi-vectors")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument("--task", help="task of a pack with several")
    parser.add_argument("--weights", default="fp32", help="weights format of the variant; default: %(default)s")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set, for a quick run")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every precision at every pool factor.

    Raises:
        InputError: an option, a set or the pack cannot be used.
        MissingExtraError: ir-measures is not installed.
    """
    model = Embedder(options.pack, task=options.task, weights=options.weights, threads=options.threads)
    manifest, task = model.pack.manifest, model.task
    if manifest.multi is None:
        raise InputError(f"{options.pack}: this pack has no multi-vectors; export one whose model has a projector")
    if task is None:
        raise InputError(f"{options.pack}: it has several tasks; pass --task, one of: {', '.join(model.tasks)}")
    assert model.variant is not None
    settings = [
        Setting(model.variant, "multi", manifest.multi.dimensions, precision, factor)
        for factor in POOL_FACTORS
        for precision in PRECISIONS
    ]
    results: dict[Setting, list[SetResult]] = {setting: [] for setting in settings}
    sets, described = read_retrieval_sets(options.data, options.sets or SETS, options.limit), []
    for evaluation_set in sets:
        logger.info("%s", evaluation_set.name)
        scorer, measured = _measure(model, task, evaluation_set, settings)
        described.append(_described(model, task, scorer))
        for result in measured:
            results[result.by_query.setting].append(result)
    codes = manifest.codes(task).multi
    assert codes is not None
    return {
        "model": manifest.name,
        "space": manifest.space(task),
        "variant": model.variant,
        "dimensions": manifest.multi.dimensions,
        "limit": options.limit,
        "kept": list(codes.kept),
        "sets": described,
        "rows": [_row(setting, results[setting], sets, options.seed) for setting in settings],
    }


def _measure(
    model: Embedder, task: str, evaluation_set: RetrievalSet, settings: Sequence[Setting]
) -> tuple[MultiVectorScorer, list[SetResult]]:
    """Score all settings on one set, compared with the float32 multi-vectors of the same variant."""
    vectors = encode_set_multi(model, task, evaluation_set)
    scorer = MultiVectorScorer(evaluation_set, QrelsScorer(evaluation_set), vectors)
    documents = evaluation_set.sides[1]
    infos = inspect_inputs(model.pack, task, documents.inputs, documents.prompt_name)
    return scorer, list(multi_results(scorer, settings, vectors, infos, TaskCodec.open(model.pack, task)))


def _row(setting: Setting, results: Sequence[SetResult], sets: Sequence[RetrievalSet], seed: int) -> dict[str, Any]:
    counts = [len(evaluation_set.documents) for evaluation_set in sets]
    bytes_a_document = float(np.average([result.by_query.bytes for result in results], weights=counts))
    row_bytes = code_width(setting.precision, setting.dimensions) * np.dtype(DTYPES[setting.precision]).itemsize
    return {
        "pool_factor": setting.pool_factor,
        "precision": setting.precision,
        "rows_a_document": round(bytes_a_document / row_bytes, 1),
        "bytes_a_document": round(bytes_a_document, 1),
        **retention(results, seed),
    }


def _described(model: Embedder, task: str, scorer: MultiVectorScorer) -> dict[str, Any]:
    evaluation_set = scorer.evaluation_set
    single = encode_set(model, task, evaluation_set)
    ndcg = QrelsScorer(evaluation_set).scores(top_columns(similarity(single.left, single.right))).ndcg
    return {
        "set": evaluation_set.name,
        "documents": len(evaluation_set.documents),
        "queries": len(evaluation_set.queries),
        "single_vector_ndcg_at_10": round(float(ndcg.mean()), 3),
        "multi_vector_ndcg_at_10": round(scorer.full_reference.score, 3),
    }


def table(results: Mapping[str, Any]) -> str:
    """Format the sets, then all settings."""
    sets = [
        (
            described["set"],
            described["documents"],
            described["queries"],
            f"{described['single_vector_ndcg_at_10']:.2f}",
            f"{described['multi_vector_ndcg_at_10']:.2f}",
        )
        for described in results["sets"]
    ]
    rows = [
        (
            row["pool_factor"],
            row["precision"],
            f"{row['rows_a_document']:.1f}",
            f"{row['bytes_a_document']:.0f}",
            *retention_cells(row),
        )
        for row in results["rows"]
    ]
    title = f"{results['model']}, {results['variant']}, {results['dimensions']} dimensions a token"
    header = ("pool factor", "documents", "rows", "bytes", "of float32 MaxSim", "95 % interval", "worst set")
    return "\n\n".join(
        [
            f"{title}; codebook keeps: {', '.join(results['kept']) or 'nothing'}",
            text_table(("set", "documents", "queries", "nDCG@10 single vector", "multi-vector"), sets),
            text_table(header, rows),
        ]
    )
