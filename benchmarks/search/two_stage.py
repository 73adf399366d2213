"""Search in stages: binary codes find candidates, int8 codes rescore them, a reranker orders the best."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import add_number
from embedpack import Embedder, Embeddings, Reranker, search
from embedpack.errors import InputError
from embedpack.pack.task_codec import TaskCodec
from embedpack.progress import Progress
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.accuracy_text import span
from embedpack_export.evaluation.scoring.encoding import encode_set
from embedpack_export.evaluation.scoring.qrels import QrelsScorer
from embedpack_export.evaluation.sets.assignment import task_of
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.html.axis import Axis
from embedpack_export.html.plot import Point, Scatter
from embedpack_export.metrics.bootstrap import interval, resampled_means, set_generator

SUMMARY = "nDCG@10, bytes and time of a search in stages: binary codes, int8 codes, reranker."
EXAMPLES = """\
  python -m benchmarks two-stage packs/minilm packs/reranker --data data/eval
  python -m benchmarks two-stage packs/minilm packs/reranker --data data/eval --queries 20 --name short"""
SETS = ("retrieval/debian-desc-en", "retrieval/xquad-en", "long/manpages-en", "code/nl2bash")
TOP = 10
# Binary candidates of each document that the next stage gets.
OVERSAMPLE = 4
EXACT, BINARY, INT8, RERANKED = "float32", "binary", "binary, int8", "binary, int8, reranker"


@dataclass(frozen=True, eq=False)
class Index:
    """Documents of a set in several precisions, and the vectors of its queries."""

    evaluation_set: RetrievalSet
    texts: Sequence[str]
    queries: Embeddings
    codes: Mapping[str, Embeddings]

    @classmethod
    def build(cls, model: Embedder, evaluation_set: RetrievalSet, queries: int) -> Index:
        """Encode all documents and the first `queries` queries."""
        kept = set(list(evaluation_set.queries)[:queries])
        cut = evaluation_set.only(set(evaluation_set.documents), kept)
        task = task_of(cut.kind, model.tasks)
        if task is None:
            raise InputError(f"{model.pack.folder}: none of its tasks is for {cut.name}")
        vectors = encode_set(model, task, cut)
        codec = TaskCodec.open(model.pack, task)
        dimensions = vectors.right.dimensions
        coded = {name: codec.single(vectors.right, name, dimensions) for name in ("binary", "int8")}
        return cls(cut, [str(text) for text in cut.documents.values()], vectors.left, coded | {EXACT: vectors.right})

    def bytes(self, names: Sequence[str]) -> float:
        """Mean bytes of a document in these precisions; of its text for "text"."""
        text = sum(len(each.encode()) for each in self.texts) if "text" in names else 0
        return (text + sum(self.codes[name].nbytes for name in names if name in self.codes)) / len(self.texts)


@dataclass(frozen=True)
class Stage:
    """A stage with the stored data that it reads, and its ranking of one query."""

    name: str
    stored: tuple[str, ...]
    rank: Callable[[int], list[int]]


@dataclass(frozen=True, eq=False)
class Timed:
    """Rankings of all queries by one stage, and seconds of each query."""

    ndcg: Float64
    wall: list[float]
    cpu: list[float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("embedder", type=Path, metavar="EMBEDDER", help="pack that finds the candidates")
    parser.add_argument("reranker", type=Path, metavar="RERANKER", help="pack that scores them")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the evaluation sets")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    add_number(parser, "--queries", 200, "queries of each set, the first ones")
    add_number(parser, "--depth", 50, "documents that the reranker scores")
    parser.set_defaults(threads=1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every stage on every set.

    Raises:
        InputError: an option, a set or a pack cannot be used.
    """
    sets = [each for each in read_sets(options.data, options.sets or SETS) if isinstance(each, RetrievalSet)]
    with (
        Embedder(options.embedder, weights="int8", threads=options.threads) as embedder,
        Reranker(options.reranker, weights="int8", threads=options.threads) as reranker,
    ):
        rows = [
            _measured(Index.build(embedder, each, options.queries), reranker, options.depth, options.seed)
            for each in sets
        ]
    return {"reranker": options.reranker.name, "depth": options.depth, "oversample": OVERSAMPLE, "sets": rows}


def stages(index: Index, reranker: Reranker, depth: int) -> list[Stage]:
    """All ways to search, from the one that stores least."""
    names = list(index.evaluation_set.queries.values())

    def found(row: int, k: int, documents: str, rescore: str | None) -> list[int]:
        finer = None if rescore is None else index.codes[rescore]
        oversample = None if rescore is None else OVERSAMPLE
        hits = search(index.queries[row : row + 1], index.codes[documents], k, rescore=finer, oversample=oversample)
        return [int(hit) for hit in hits.indices[0]]

    def reranked(row: int) -> list[int]:
        candidates = found(row, depth, "binary", "int8")
        best = reranker.rank(names[row], [index.texts[each] for each in candidates], TOP)
        return [candidates[each.index] for each in best]

    return [
        Stage(BINARY, ("binary",), lambda row: found(row, TOP, "binary", None)),
        Stage(INT8, ("binary", "int8"), lambda row: found(row, TOP, "binary", "int8")),
        Stage(RERANKED, ("binary", "int8", "text"), reranked),
        Stage(EXACT, (EXACT,), lambda row: found(row, TOP, EXACT, None)),
    ]


def _measured(index: Index, reranker: Reranker, depth: int, seed: int) -> dict[str, Any]:
    """Row of one set: each stage compared with the one before; float32 with binary and int8."""
    every = stages(index, reranker, depth)
    with Progress(f"searching {index.evaluation_set.name}", len(every)) as progress:
        timed = {}
        for stage in every:
            timed[stage.name] = _timed(index, stage)
            progress.advance(1)
    generator = set_generator(index.evaluation_set.name, seed)
    rows = []
    for stage in every:
        own, base = timed[stage.name], timed[EXACT]
        difference = own.ndcg - base.ndcg
        low, high = interval(resampled_means(difference[:, None], generator)[:, 0])
        rows.append(
            {
                "stage": stage.name,
                "ndcg_at_10": round(float(own.ndcg.mean()), 4),
                "minus_float32": round(float(difference.mean()), 4),
                "interval_95": [round(low, 4), round(high, 4)],
                "bytes_a_document": round(index.bytes(stage.stored), 1),
                "wall_ms": round(1000 * statistics.median(own.wall), 4),
                "cpu_ms": round(1000 * statistics.median(own.cpu), 4),
            }
        )
    return {
        "set": index.evaluation_set.name,
        "documents": len(index.texts),
        "queries": len(index.queries),
        "stages": rows,
    }


def _timed(index: Index, stage: Stage) -> Timed:
    """Rank all queries, one after the other."""
    stage.rank(0)
    ranks, walls, cpus = [], [], []
    for row in range(len(index.queries)):
        wall, cpu = time.perf_counter(), time.process_time()
        ranks.append(stage.rank(row))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Timed(QrelsScorer(index.evaluation_set).scores(np.array(ranks)).ndcg, walls, cpus)


def means(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the stages, as means over the sets."""
    rows = []
    for number, stage in enumerate(results["sets"][0]["stages"]):
        own = [each["stages"][number] for each in results["sets"]]
        figures = ("ndcg_at_10", "minus_float32", "bytes_a_document", "wall_ms", "cpu_ms")
        rows.append({"stage": stage["stage"]} | {name: statistics.mean(row[name] for row in own) for name in figures})
    return rows


def table(results: Mapping[str, Any]) -> str:
    """Table of all sets, then of the means."""
    rows = [
        (
            each["set"],
            row["stage"],
            f"{row['ndcg_at_10']:.2f}",
            f"{row['minus_float32']:+.2f}",
            span(*row["interval_95"]),
            *_cost(row),
        )
        for each in results["sets"]
        for row in each["stages"]
    ]
    rows += [
        ("mean", row["stage"], f"{row['ndcg_at_10']:.2f}", f"{row['minus_float32']:+.2f}", "", *_cost(row))
        for row in means(results)
    ]
    header = ("set", "stages", "nDCG@10", "minus float32", "95 % interval", "bytes", "ms a query", "CPU ms")
    return text_table(header, rows)


def _cost(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{row['bytes_a_document']:.0f}", f"{row['wall_ms']:.2f}", f"{row['cpu_ms']:.2f}"


HEADER = ["stages", "nDCG@10", "minus float32", "bytes a document", "CPU ms a query"]


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the means, for a document."""
    return [
        [
            row["stage"],
            f"{row['ndcg_at_10']:.2f}",
            f"{row['minus_float32']:+.2f}",
            f"{row['bytes_a_document']:.0f}",
            f"{row['cpu_ms']:.2f}",
        ]
        for row in means(results)
    ]


def document_note(results: Mapping[str, Any]) -> str:
    """Facts about the measurement, for a document."""
    gains = []
    for each in results["sets"]:
        row = next(row for row in each["stages"] if row["stage"] == RERANKED)
        gains.append(f"{each['set']} {row['minus_float32']:+.1f} {span(*row['interval_95'])}")
    return (
        f"Means of {len(results['sets'])} sets; binary codes find {results['oversample']} times as many documents as "
        f"the next stage gets, the reranker scores the best {results['depth']}. All stages, in points of nDCG@10 "
        f"compared with an exact search of float32 vectors, 95 % interval: {', '.join(gains)}."
    )


def plot(results: Mapping[str, Any]) -> Scatter:
    """nDCG@10 of each set and stage, by CPU time."""
    points = [
        Point(f"{each['set']}: {row['stage']}", row["cpu_ms"], row["ndcg_at_10"], each["set"])
        for each in results["sets"]
        for row in each["stages"]
        if row["stage"] != EXACT
    ]
    x, y = Axis("CPU ms a query", log=True), Axis("nDCG@10", "high")
    return Scatter("Search in stages: binary codes, int8 codes, reranker", x, y, points)
