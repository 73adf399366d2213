"""Ranking loss of truncated and low-bit codes."""

from __future__ import annotations

from collections.abc import Iterator

from embedpack import Embeddings, similarity
from embedpack.pack.folder import Pack
from embedpack.pack.heads import single_metric, single_vectors
from embedpack.pack.task_codec import TaskCodec
from embedpack.vectors.arrays import Float32
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codes import PRECISIONS, is_low_bit
from embedpack_export.accuracy_check.figures import CodeAccuracy
from embedpack_export.accuracy_check.self_retrieval import ReferenceRanking


def code_accuracies(pack: Pack, task: str, vectors: Float32, ranking: ReferenceRanking) -> Iterator[CodeAccuracy]:
    """Compare every precision and truncation with the reference's ranking.

    The vectors of a variant, [texts, dimensions], are queries in float32, and documents that are coded.
    """
    head = single_vectors(pack)
    codec = TaskCodec.open(pack, task)
    metric = single_metric(pack.manifest, task)
    queries = Embeddings(vectors, "float32", head.dimensions, pack.manifest.space(task), metric=metric)
    for precision in PRECISIONS:
        if is_low_bit(precision) and not (metric.has_low_bits and fills_bytes(precision, head.dimensions)):
            continue
        documents = codec.single(queries, precision, head.dimensions)
        for dimensions in reversed(head.truncate_dims):
            if not is_low_bit(precision) or fills_bytes(precision, dimensions):
                truncated = documents.truncate(dimensions)
                loss = ranking.compare(similarity(queries.truncate(dimensions), truncated))
                yield CodeAccuracy(
                    truncate_dim=dimensions,
                    precision=precision,
                    bytes=truncated.nbytes // len(truncated),
                    ranking_loss=loss.loss,
                    top_10_overlap=loss.overlap,
                )
