"""Candidates of the queries of a set: the documents that an embedder finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedpack import Embedder, search
from embedpack.errors import InputError
from embedpack.pack.folder import read_pack
from embedpack.progress import Progress
from embedpack.vectors.arrays import Float32
from embedpack_export.evaluation.reranking.options import FirstStage
from embedpack_export.evaluation.scoring.encoding import encode_set
from embedpack_export.evaluation.sets.assignment import task_of
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.metrics.rankings import Ranks

# Scores of a query's documents, float32 [documents].
Score = Callable[[str, Sequence[str]], Float32]


@dataclass(frozen=True, eq=False)
class Candidates:
    """A set with the nearest documents of each query.

    Attributes:
        evaluation_set: the set; its documents are texts.
        ranks: rows of the documents, nearest first, [queries, depth].
    """

    evaluation_set: RetrievalSet
    ranks: Ranks

    def scores(self, score: Score) -> Float32:
        """Score the candidates of every query, float32 [queries, depth]."""
        queries, documents = list(self.evaluation_set.queries.values()), list(self.evaluation_set.documents.values())
        rows = np.empty(self.ranks.shape, np.float32)
        with Progress(f"reranking {self.evaluation_set.name}", len(queries)) as progress:
            for number, query in enumerate(queries):
                rows[number] = score(query, [str(documents[row]) for row in self.ranks[number].tolist()])
                progress.advance(1)
        return rows

    def reranked(self, scores: Float32) -> Ranks:
        """Rows of the documents in the order of their scores [queries, depth], equal ones as they were found."""
        return np.take_along_axis(self.ranks, np.argsort(-scores, axis=1, kind="stable"), axis=1)


def find_candidates(first_stage: FirstStage, sets: Sequence[RetrievalSet], threads: int | None) -> list[Candidates]:
    """Search every set with the int8 variant of the embedder, or the one that it opens by itself without int8.

    Raises:
        InputError: the pack gives no single vectors, or none of its tasks fits a set.
    """
    manifest = read_pack(first_stage.pack).manifest
    if manifest.single is None:
        raise InputError(f"{first_stage.pack}: this pack gives no single vectors; --first-stage takes an embedder")
    weights = "int8" if any(variant.weights == "int8" for variant in manifest.variants.values()) else None
    found = []
    for evaluation_set in sets:
        task = task_of(evaluation_set.kind, list(manifest.tasks))
        if task is None:
            raise InputError(
                f"{first_stage.pack}: none of its tasks ({', '.join(manifest.tasks)}) is for {evaluation_set.name}"
            )
        with Embedder(first_stage.pack, task=task, weights=weights, threads=threads) as model:
            vectors = encode_set(model, task, evaluation_set)
        depth = min(first_stage.depth, len(evaluation_set.documents))
        found.append(Candidates(evaluation_set, search(vectors.left, vectors.right, depth).indices))
    return found
