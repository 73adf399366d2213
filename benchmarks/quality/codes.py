"""Codes: the part of float32's nDCG@10 that each precision and truncation keeps."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.retention import retention, retention_cells
from benchmarks.retrieval_sets import read_retrieval_sets
from embedpack import Embeddings, InputError
from embedpack.errors import unknown
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.heads import single_vectors
from embedpack.pack.task_codec import TaskCodec
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codebook import Codebook, LowBit
from embedpack.vectors.codes import PRECISIONS, Precision, is_low_bit, quantize
from embedpack_export.evaluation.results import SetResult, Setting
from embedpack_export.evaluation.scoring.encoding import VectorPair
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.scoring.set_scorers import RetrievalScorer
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.reference.cache import CacheKey, ReferenceCache
from embedpack_export.reference.fp32_variant import Fp32VariantReference

SUMMARY = "nDCG@10 of codes and truncations, compared with float32."
EXAMPLES = """\
  python -m benchmarks codes packs/minilm packs/e5 --data data/eval
  python -m benchmarks codes packs/minilm --data data/eval --set code/nl2bash --expand 2048 --cache vectors"""

SETS = (
    "code/cosqa-dev", "code/nl2bash", "long/manpages-en", "retrieval/xquad-cross", "retrieval/debian-desc-en",
    "retrieval/debian-desc-de", "retrieval/debian-desc-fr", "retrieval/debian-desc-pt_BR",
)  # fmt: skip
# Range of the float32 score, in points, of sets that are part of the means. Below it next to nothing is found, above it
# there is nothing to lose.
COUNTED = (30.0, 95.0)
# Precision that is measured with coded queries, too; queries are float32 otherwise.
SYMMETRIC: LowBit = "binary"
# Variance of the coordinates of a codebook whose center has unit length.
MIN_VARIANCE = 1e-6

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True, eq=False)
class EncodedSet:
    """A set with its float32 vectors, and the scorer that compares with them."""

    scorer: RetrievalScorer
    vectors: VectorPair

    @property
    def in_mean(self) -> bool:
        """True if the set is part of the means."""
        low, high = COUNTED
        return low <= self.scorer.full_reference.score <= high


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="packs with an fp32 variant")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--task", help="task of packs with several")
    parser.add_argument(
        "--expand", type=int, metavar="D", help="measure codes of the vectors rotated into D dimensions, too"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="cache of the float32 vectors")
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set, for a quick run")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every precision at every truncation of each pack.

    Raises:
        InputError: an option, a set or a pack cannot be used.
        MissingExtraError: ir-measures is not installed.
    """
    sets = read_retrieval_sets(options.data, options.sets or SETS, options.limit)
    return {
        "limit": options.limit,
        "counted": COUNTED,
        "models": [_model(read_pack(folder), sets, options) for folder in options.packs],
    }


def _model(pack: Pack, sets: Sequence[RetrievalSet], options: argparse.Namespace) -> dict[str, Any]:
    manifest = pack.manifest
    if len(manifest.tasks) > 1 and options.task is None:
        raise InputError(f"{pack.folder}: it has several tasks; pass --task, one of: {', '.join(manifest.tasks)}")
    task = options.task if len(manifest.tasks) > 1 else next(iter(manifest.tasks))
    if task not in manifest.tasks:
        raise InputError(unknown("task", task, manifest.tasks))
    encoded = _encode(pack, task, sets, options)
    counted = [encoded_set for encoded_set in encoded if encoded_set.in_mean]
    if not counted:
        raise InputError(f"{pack.folder}: scores between {COUNTED[0]} and {COUNTED[1]} points on none of the sets")
    codec = TaskCodec.open(pack, task)
    head, codes, codebook = single_vectors(pack), codec.space.single, codec.codebooks.single
    assert codes is not None
    assert codebook is not None
    return {
        "model": manifest.name,
        "space": manifest.space(task),
        "kept": codes.kept,
        "held_out_recall_at_10": codes.recall_at_10,
        "sets": [_described(encoded_set, head.truncate_dims) for encoded_set in encoded],
        "rows": [row for dims in head.truncate_dims for row in _rows(counted, codec, dims, options.seed)],
        "expanded": [] if options.expand is None else _expanded(counted, codebook, options.expand, options.seed),
    }


def _encode(pack: Pack, task: str, sets: Sequence[RetrievalSet], options: argparse.Namespace) -> list[EncodedSet]:
    """Encode the sets with the fp32 variant."""
    manifest = pack.manifest
    reference, cache = Fp32VariantReference(pack, options.threads), ReferenceCache(options.cache)
    encoded = []
    for evaluation_set in sets:
        logger.info("%s: %s", manifest.name, evaluation_set.name)
        sides = []
        for side in evaluation_set.sides:
            prompt = manifest.tasks[task].prompt(side.prompt_name)
            key = CacheKey(f"{manifest.source.fingerprint}, {reference.kind}", task, prompt, side.inputs)
            codes = cache.single(key, partial(reference.single, task, side.inputs, prompt))
            sides.append(Embeddings(codes, "float32", codes.shape[1], manifest.space(task)))
        vectors = VectorPair(*sides)
        encoded.append(EncodedSet(RetrievalScorer(evaluation_set, QrelsScorer(evaluation_set), vectors), vectors))
    return encoded


def _rows(sets: Sequence[EncodedSet], codec: TaskCodec, dimensions: int, seed: int) -> list[dict[str, Any]]:
    """Measure all precisions at one truncation."""
    rows = []
    for precision in PRECISIONS:
        if is_low_bit(precision) and not fills_bytes(precision, dimensions):
            continue
        setting = Setting("fp32", "single", dimensions, precision)
        coded = [codec.single(encoded_set.vectors.right, precision, dimensions) for encoded_set in sets]
        results = [
            encoded_set.scorer.score(setting, encoded_set.vectors.left, documents)
            for encoded_set, documents in zip(sets, coded, strict=True)
        ]
        rows.append(_row(setting, precision, results, seed))
        if precision == SYMMETRIC:
            results = [
                encoded_set.scorer.score(
                    setting, codec.single(encoded_set.vectors.left, precision, dimensions), documents
                )
                for encoded_set, documents in zip(sets, coded, strict=True)
            ]
            rows.append(_row(setting, f"{precision}, queries too", results, seed))
    return rows


def _row(setting: Setting, label: str, results: Sequence[SetResult], seed: int) -> dict[str, Any]:
    of_full = [result.score / result.by_query.full_reference for result in results]
    return {
        "dimensions": setting.dimensions,
        "precision": label,
        "bytes": int(results[0].by_query.bytes),
        **retention(results, seed),
        # Compared with float32 at full dimensions, to compare codes of different truncations.
        "retention_of_full": round(float(np.mean(of_full)), 5),
    }


def _expanded(sets: Sequence[EncodedSet], codebook: Codebook | None, wide: int, seed: int) -> list[dict[str, Any]]:
    """Measure low-bit codes of the vectors in more dimensions, after a random map with orthonormal columns."""
    assert codebook is not None
    narrow = codebook.dimensions
    if wide <= narrow or wide % 8:
        raise InputError(f"--expand {wide} must be a multiple of 8 above {narrow}, the dimensions of the vectors")
    generator = np.random.default_rng(seed)
    frame = np.linalg.qr(generator.standard_normal((wide, narrow)))[0].astype(np.float32)
    center = codebook.rotate_back(codebook.center[None])[0]
    variance = max(1 - np.square(center).sum(), MIN_VARIANCE) / wide
    wide_codebook = Codebook.gaussian(frame @ center, float(np.sqrt(variance)))
    by_precision: dict[Precision, list[SetResult]] = {
        precision: [] for precision in PRECISIONS if is_low_bit(precision)
    }
    for encoded_set in sets:
        vectors = VectorPair(
            *(
                Embeddings(np.ascontiguousarray(side.codes @ frame.T), "float32", wide, side.space)
                for side in (encoded_set.vectors.left, encoded_set.vectors.right)
            )
        )
        scorer = RetrievalScorer(
            encoded_set.scorer.evaluation_set, QrelsScorer(encoded_set.scorer.evaluation_set), vectors
        )
        for precision, results in by_precision.items():
            codes = quantize(vectors.right.codes, precision, wide_codebook)
            documents = Embeddings(codes, precision, wide, vectors.right.space, codebook=wide_codebook)
            results.append(scorer.score(Setting("fp32", "single", wide, precision), vectors.left, documents))
    return [
        _row(Setting("fp32", "single", wide, precision), precision, results, seed)
        for precision, results in by_precision.items()
    ]


def _described(encoded_set: EncodedSet, truncate_dims: Sequence[int]) -> dict[str, Any]:
    return {
        "set": encoded_set.scorer.evaluation_set.name,
        "documents": len(encoded_set.vectors.right),
        "queries": len(encoded_set.vectors.left),
        "in_mean": encoded_set.in_mean,
        "float32_ndcg_at_10": {
            str(dimensions): round(encoded_set.scorer.reference_score(dimensions), 3) for dimensions in truncate_dims
        },
    }


def table(results: Mapping[str, Any]) -> str:
    """Format one table for each model."""
    header = ("codes", "bytes", "of float32 at the same dimensions", "95 % interval", "worst set", "of full float32")
    parts = []
    for model in results["models"]:
        rows = [
            (
                f"{row['dimensions']} {row['precision']}",
                row["bytes"],
                *retention_cells(row),
                f"{row['retention_of_full']:.2%}",
            )
            for row in (*model["rows"], *model["expanded"])
        ]
        full = {
            described["set"]: list(described["float32_ndcg_at_10"].values())[-1]
            for described in model["sets"]
            if described["in_mean"]
        }
        means = ", ".join(f"{name} {value:.2f}" for name, value in full.items())
        parts.append(f"{model['model']}; codebook keeps: {', '.join(model['kept']) or 'nothing'}\nfloat32: {means}")
        parts.append(text_table(header, rows))
    return "\n\n".join(parts)
