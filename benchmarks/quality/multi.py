"""Multi-vectors: what fewer rows and fewer bits keep of the rankings that float32 late interaction gives."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.metrics import ndcg_at_10, ratio_95
from embedpack import Embedder, InputError, MultiEmbeddings, maxsim, similarity
from embedpack.pack.codebooks import open_codebooks
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Precision, is_low_bit, quantize
from embedpack_export.evaluation.scoring.encoding import InputInfo, inspect_inputs, pooled
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_retrieval_sets
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.rankings import Float64, top_columns

SUMMARY = "What pooling and codes keep of float32 late-interaction rankings."
EXAMPLES = """\
  python -m benchmarks multi packs/minilm --task retrieval --data data/eval
  python -m benchmarks multi packs/minilm --task code --data data/eval --set code/nl2bash --set code/cosqa-dev"""

SETS = ("code/nl2bash", "code/cosqa-dev", "retrieval/debian-desc-en", "long/manpages-en")
POOL_FACTORS = (1, 2, 3, 4, 9)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "4bit", "2bit", "ternary", "binary")

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Judged:
    """A set, its float32 vectors, and what the single vectors and the multi-vectors find, query by query."""

    judged: RetrievalSet
    queries: MultiEmbeddings
    documents: MultiEmbeddings
    seen: list[InputInfo]
    single: Float64
    exact: Float64


@dataclass(frozen=True)
class Coder:
    """How float32 rows become codes: the step of int8, the codebook of fewer bits."""

    step: float
    codebook: Codebook

    def code(self, rows: MultiEmbeddings, precision: Precision) -> MultiEmbeddings:
        """The same rows in a precision, as `Embedder.encode_multi` codes them."""
        if precision == "float32":
            return rows
        by = self.codebook if is_low_bit(precision) else self.step
        codes = quantize(rows.codes, precision, by)
        codebook = self.codebook if is_low_bit(precision) else None
        return MultiEmbeddings(codes, rows.offsets, precision, rows.dimensions, rows.space, codebook=codebook)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="a pack with multi-vectors")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument("--task", help="may be left out where the pack has one task")
    parser.add_argument("--weights", default="fp32", help="of the variant; default: %(default)s")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set and few documents: a trial")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every precision at every pool factor.

    Raises:
        InputError: an option, a set or the pack cannot be used.
        MissingExtraError: ir-measures is not installed.
    """
    model = Embedder(options.pack, task=options.task, weights=options.weights, threads=options.threads)
    if model.pack.manifest.multi_vector_dimensions is None:
        raise InputError(f"{options.pack}: this pack has no multi-vectors; export one whose model has a projector")
    if model.task is None:
        raise InputError(f"{options.pack}: it has several tasks; pass --task, one of: {', '.join(model.tasks)}")
    sets = read_retrieval_sets(options.data, options.sets or SETS, options.limit)
    task, codebook = model.pack.manifest.tasks[model.task], open_codebooks(model.pack, model.task).token
    assert task.token_int8_scale is not None
    assert codebook is not None
    coder = Coder(task.token_int8_scale, codebook)
    judged = [_judged(model, item) for item in sets]
    rows = []
    for factor in POOL_FACTORS:
        logger.info("pool factor %d", factor)
        fewer = [pooled(item.documents, item.seen, factor) for item in judged]
        rows += [_row(judged, fewer, coder, (factor, precision), options.seed) for precision in PRECISIONS]
    return {
        "model": model.pack.manifest.name,
        "space": model.pack.manifest.space(model.task),
        "variant": model.variant,
        "dimensions": model.pack.manifest.multi_vector_dimensions,
        "limit": options.limit,
        "kept": _kept_steps(model),
        "sets": [_described(item) for item in judged],
        "rows": rows,
    }


def _kept_steps(model: Embedder) -> list[str]:
    """Which steps the codebook of tokens keeps."""
    assert model.task is not None
    record = model.pack.manifest.tasks[model.task].token_codes
    assert record is not None
    return list(record.kept)


def _judged(model: Embedder, item: RetrievalSet) -> Judged:
    logger.info("%s: queries and documents", item.name)
    asked, name = list(item.queries.values()), _prompt(model, "query")
    texts, passage = list(item.documents.values()), _prompt(model, "passage")
    found = similarity(model.encode(asked, prompt_name=name), model.encode(texts, prompt_name=passage))
    queries = model.encode_multi(asked, prompt_name=name)
    documents = model.encode_multi(texts, prompt_name=passage)
    assert model.task is not None
    seen = inspect_inputs(model.pack, model.task, texts, "passage")
    exact = ndcg_at_10(top_columns(maxsim(queries, documents)), item)
    return Judged(item, queries, documents, seen, ndcg_at_10(top_columns(found), item), exact)


def _prompt(model: Embedder, name: str) -> str | None:
    return name if name in model.prompts else None


def _row(
    judged: Sequence[Judged],
    documents: Sequence[MultiEmbeddings],
    coder: Coder,
    kind: tuple[int, Precision],
    seed: int,
) -> dict[str, Any]:
    """What one kind of multi-vectors keeps, set by set and in the mean; float32 queries."""
    factor, precision = kind
    coded = [coder.code(item, precision) for item in documents]
    found = [
        ndcg_at_10(top_columns(maxsim(item.queries, rows)), item.judged)
        for item, rows in zip(judged, coded, strict=True)
    ]
    kept = {
        item.judged.name: round(float(values.mean() / item.exact.mean()), 5)
        for item, values in zip(judged, found, strict=True)
    }
    low, high = ratio_95([(values, item.exact) for item, values in zip(judged, found, strict=True)], seed)
    worst = min(kept, key=lambda name: kept[name])
    return {
        "pool_factor": factor,
        "precision": precision,
        "rows_a_document": round(sum(len(item.codes) for item in coded) / sum(map(len, coded)), 1),
        "bytes_a_document": round(sum(item.nbytes for item in coded) / sum(map(len, coded)), 1),
        "retention": round(float(np.mean(list(kept.values()))), 5),
        "retention_95": [round(low, 5), round(high, 5)],
        "worst_set": worst,
        "worst_retention": kept[worst],
        "by_set": kept,
    }


def _described(item: Judged) -> dict[str, Any]:
    return {
        "set": item.judged.name,
        "documents": len(item.judged.documents),
        "queries": len(item.judged.queries),
        "single_vector_ndcg_at_10": round(float(item.single.mean()), 3),
        "multi_vector_ndcg_at_10": round(float(item.exact.mean()), 3),
    }


def table(results: Mapping[str, Any]) -> str:
    """The sets, then every kind of multi-vectors."""
    sets = [
        (
            item["set"],
            item["documents"],
            item["queries"],
            f"{item['single_vector_ndcg_at_10']:.2f}",
            f"{item['multi_vector_ndcg_at_10']:.2f}",
        )
        for item in results["sets"]
    ]
    rows = [
        (
            row["pool_factor"],
            row["precision"],
            f"{row['rows_a_document']:.1f}",
            f"{row['bytes_a_document']:.0f}",
            f"{row['retention']:.2%}",
            f"[{row['retention_95'][0]:.2%}, {row['retention_95'][1]:.2%}]",
            f"{row['worst_retention']:.2%} {row['worst_set']}",
        )
        for row in results["rows"]
    ]
    head = f"{results['model']}, {results['variant']}, {results['dimensions']} dimensions a token"
    header = ("pool factor", "documents", "rows", "bytes", "of float32 MaxSim", "95 % interval", "worst set")
    return "\n\n".join(
        [
            f"{head}; codebook keeps: {', '.join(results['kept']) or 'nothing'}",
            text_table(("set", "documents", "queries", "nDCG@10 single vector", "multi-vector"), sets),
            text_table(header, rows),
        ]
    )
