"""Codes: what each precision and truncation keeps of the rankings that a model's float32 vectors give."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.metrics import ndcg_at_10, ratio_95
from embedpack import Embedder, Embeddings, InputError, similarity
from embedpack.pack.codebooks import open_codebooks
from embedpack.pack.folder import read_pack
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codebook import Codebook, LowBit
from embedpack.vectors.codes import PRECISIONS, Precision, is_low_bit, quantize
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_retrieval_sets
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.rankings import Float64, top_columns

SUMMARY = "What codes and truncations keep of float32 rankings."
EXAMPLES = """\
  python -m benchmarks codes packs/minilm packs/e5 --data data/eval
  python -m benchmarks codes packs/minilm --data data/eval --set code/nl2bash --expand 2048 --cache vectors"""

SETS = (
    "code/cosqa-dev", "code/nl2bash", "long/manpages-en", "retrieval/xquad-cross", "retrieval/debian-desc-en",
    "retrieval/debian-desc-de", "retrieval/debian-desc-fr", "retrieval/debian-desc-pt_BR",
)  # fmt: skip
# Sets where a model scores outside of these, in points, do not count in its means: there is nothing to lose, or next
# to nothing is found anyway.
COUNTED = (30.0, 95.0)
# Beside float32 queries against codes: queries coded like the documents.
SYMMETRIC: LowBit = "binary"

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Vectors:
    """Float32 vectors of a set's texts, in their order, with the nDCG@10 that they give at each truncation."""

    judged: RetrievalSet
    queries: Embeddings
    documents: Embeddings
    exact: Mapping[int, Float64]

    @property
    def counts(self) -> bool:
        """Whether the set counts in the means."""
        low, high = COUNTED
        return low <= float(self.exact[self.documents.dimensions].mean()) <= high


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="packs with an fp32 variant")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--task", help="of packs with several")
    parser.add_argument(
        "--expand", type=int, metavar="D", help="also: codes of the vectors in D dimensions, turned there at random"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep float32 vectors there, to measure again soon")
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set and few documents: a trial")


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
        "models": [_model(pack, sets, options) for pack in options.packs],
    }


def _model(pack: Path, sets: Sequence[RetrievalSet], options: argparse.Namespace) -> dict[str, Any]:
    tasks = read_pack(pack).manifest.tasks
    if len(tasks) > 1 and options.task is None:
        raise InputError(f"{pack}: it has several tasks; pass --task, one of: {', '.join(tasks)}")
    model = Embedder(pack, task=options.task if len(tasks) > 1 else None, weights="fp32", threads=options.threads)
    assert model.task is not None
    task = model.pack.manifest.tasks[model.task]
    codebook = open_codebooks(model.pack, model.task).single
    vectors = [_encode(model, item, options.cache) for item in sets]
    if not any(item.counts for item in vectors):
        raise InputError(f"{pack}: scores between {COUNTED[0]} and {COUNTED[1]} points on none of the sets")
    coders: dict[Precision, float | Codebook | None] = {
        precision: codebook if is_low_bit(precision) else task.int8_scale if precision == "int8" else None
        for precision in PRECISIONS
        if precision != "float32"
    }
    rows = []
    for dimensions in model.truncate_dims:
        rows.append(_row(vectors, dimensions, "float32", [item.documents for item in vectors], options.seed))
        for precision, by in coders.items():
            if is_low_bit(precision) and not fills_bytes(precision, dimensions):
                continue
            coded = [_coded(item.documents, precision, by) for item in vectors]
            rows.append(_row(vectors, dimensions, precision, coded, options.seed))
        if not fills_bytes(SYMMETRIC, dimensions):
            continue
        coded = [_coded(item.documents, SYMMETRIC, codebook) for item in vectors]
        asked = [_coded(item.queries, SYMMETRIC, codebook) for item in vectors]
        rows.append(_row(vectors, dimensions, f"{SYMMETRIC}, queries too", coded, options.seed, asked))
    return {
        "model": model.pack.manifest.name,
        "space": model.pack.manifest.space(model.task),
        "kept": task.codes.kept,
        "held_out_agreement": task.codes.agreement,
        "sets": [_described(item) for item in vectors],
        "rows": rows,
        "expanded": [] if options.expand is None else _expanded(vectors, codebook, options),
    }


def _encode(model: Embedder, item: RetrievalSet, cache: Path | None) -> Vectors:
    logger.info("%s: %s", model.pack.manifest.name, item.name)
    queries = _cached(model, list(item.queries.values()), "query", cache)
    documents = _cached(model, list(item.documents.values()), "passage", cache)
    exact = {
        dimensions: _ndcg(item, queries.truncate(dimensions), documents.truncate(dimensions))
        for dimensions in model.truncate_dims
    }
    return Vectors(item, queries, documents, exact)


def _cached(model: Embedder, inputs: list[str | Path], prompt: str, cache: Path | None) -> Embeddings:
    """Vectors of texts, or of files of images, under the prompt of that name where the task has it."""
    name = prompt if prompt in model.prompts else None
    assert model.task is not None
    key = json.dumps([model.pack.manifest.space(model.task), name, *map(str, inputs)]).encode()
    path = None if cache is None else cache / f"{hashlib.sha256(key).hexdigest()[:32]}.safetensors"
    if path is not None and path.is_file():
        return Embeddings.load(path)
    vectors = model.encode(inputs, prompt_name=name)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors.save(path)
    return vectors


def _coded(vectors: Embeddings, precision: Precision, by: float | Codebook | None) -> Embeddings:
    codes = quantize(vectors.codes, precision, by)
    codebook = by if isinstance(by, Codebook) else None
    return Embeddings(codes, precision, vectors.dimensions, vectors.space, codebook=codebook)


def _row(
    vectors: Sequence[Vectors],
    dimensions: int,
    label: str,
    documents: Sequence[Embeddings],
    seed: int,
    queries: Sequence[Embeddings] | None = None,
) -> dict[str, Any]:
    """What one kind of codes keeps, set by set and in the mean, of float32 at the same truncation."""
    asked = queries or [item.queries for item in vectors]
    cut = [item.truncate(dimensions) for item in documents]
    found = [
        _ndcg(item.judged, query.truncate(dimensions), document)
        for item, query, document in zip(vectors, asked, cut, strict=True)
    ]
    return {
        "dimensions": dimensions,
        "precision": label,
        "bytes": cut[0].nbytes // len(cut[0]),
        **_retention(vectors, found, [item.exact[dimensions] for item in vectors], seed),
    }


def _retention(
    vectors: Sequence[Vectors], found: Sequence[Float64], exact: Sequence[Float64], seed: int
) -> dict[str, Any]:
    by_set = {
        item.judged.name: float(values.mean() / whole.mean())
        for item, values, whole in zip(vectors, found, exact, strict=True)
        if item.counts
    }
    counted = [(values, whole) for item, values, whole in zip(vectors, found, exact, strict=True) if item.counts]
    full = [item.exact[item.documents.dimensions] for item in vectors if item.counts]
    low, high = ratio_95(counted, seed)
    worst = min(by_set, key=lambda name: by_set[name])
    return {
        "retention": _rounded(np.mean(list(by_set.values()))),
        "retention_95": [_rounded(low), _rounded(high)],
        "worst_set": worst,
        "worst_retention": _rounded(by_set[worst]),
        # Beside float32 at full dimensions: what codes of different truncations are compared by.
        "retention_of_full": _rounded(
            np.mean([values.mean() / whole.mean() for (values, _), whole in zip(counted, full, strict=True)])
        ),
        "by_set": {name: _rounded(value) for name, value in by_set.items()},
    }


def _expanded(vectors: Sequence[Vectors], codebook: Codebook, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Low-bit codes of the vectors in more dimensions, where a random frame with orthonormal columns takes them."""
    few, many = codebook.dimensions, int(options.expand)
    if many <= few or many % 8:
        raise InputError(f"--expand {many} must be a multiple of 8 above {few}, the dimensions of the vectors")
    rng = np.random.default_rng(options.seed)
    frame = np.linalg.qr(rng.standard_normal((many, few)))[0].astype(np.float32)
    center = codebook.rotate_back(codebook.center[None])[0]
    spread = float(np.sqrt(max(1 - np.square(center).sum(), 1e-6) / many))
    wide = Codebook.gaussian(frame @ center, spread)
    rows = []
    for precision in PRECISIONS:
        if not is_low_bit(precision):
            continue
        found, size = [], 0
        for item in vectors:
            moved = [
                Embeddings(np.ascontiguousarray(side.codes @ frame.T), "float32", many, side.space)
                for side in (item.queries, item.documents)
            ]
            coded = _coded(moved[1], precision, wide)
            size = coded.nbytes // len(coded)
            found.append(_ndcg(item.judged, moved[0], coded))
        exact = [item.exact[few] for item in vectors]
        rows.append(
            {
                "dimensions": many,
                "precision": precision,
                "bytes": size,
                **_retention(vectors, found, exact, options.seed),
            }
        )
    return rows


def _described(item: Vectors) -> dict[str, Any]:
    return {
        "set": item.judged.name,
        "documents": len(item.documents),
        "queries": len(item.queries),
        "counts": item.counts,
        "float32_ndcg_at_10": {
            str(dimensions): round(float(values.mean()), 3) for dimensions, values in item.exact.items()
        },
    }


def _ndcg(judged: RetrievalSet, queries: Embeddings, documents: Embeddings) -> Float64:
    return ndcg_at_10(top_columns(similarity(queries, documents)), judged)


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 5)


def table(results: Mapping[str, Any]) -> str:
    """One table a model."""
    parts = []
    for model in results["models"]:
        full = {item["set"]: list(item["float32_ndcg_at_10"].values())[-1] for item in model["sets"] if item["counts"]}
        lines = [
            (
                f"{row['dimensions']} {row['precision']}",
                row["bytes"],
                f"{row['retention']:.2%}",
                f"[{row['retention_95'][0]:.2%}, {row['retention_95'][1]:.2%}]",
                f"{row['worst_retention']:.2%} {row['worst_set']}",
                f"{row['retention_of_full']:.2%}",
            )
            for row in (*model["rows"], *model["expanded"])
        ]
        header = (
            "codes",
            "bytes",
            "of float32 at the same dimensions",
            "95 % interval",
            "worst set",
            "of full float32",
        )
        means = ", ".join(f"{name} {value:.2f}" for name, value in full.items())
        parts.append(f"{model['model']}; codebook keeps: {', '.join(model['kept']) or 'nothing'}\nfloat32: {means}")
        parts.append(text_table(header, lines))
    return "\n\n".join(parts)
