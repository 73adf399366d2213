"""Ranking loss of truncated and low-bit codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedpack import Embeddings, MultiEmbeddings, maxsim, similarity
from embedpack.pack.folder import Pack
from embedpack.pack.heads import multi_vectors, single_metric, single_vectors
from embedpack.pack.manifest import MultiVectors, SingleVectors
from embedpack.pack.task_codec import TaskCodec
from embedpack.vectors.arrays import Float32
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codes import PRECISIONS, Precision, is_low_bit
from embedpack_export.accuracy_check.figures import CodeAccuracy
from embedpack_export.accuracy_check.self_retrieval import RankingLoss, ReferenceRanking
from embedpack_export.accuracy_check.text_vectors import TextVectors, joined_multi


def code_accuracies(pack: Pack, task: str, vectors: TextVectors, ranking: ReferenceRanking) -> Iterator[CodeAccuracy]:
    """Compare every precision and truncation with the reference's ranking.

    The vectors of a variant are queries in float32, and documents that are coded.
    """
    if vectors.single is not None:
        yield from _of_single(pack, task, vectors.single, ranking)
    elif vectors.multi is not None:
        yield from _of_multi(pack, task, vectors.multi, ranking)


def _of_single(pack: Pack, task: str, vectors: Float32, ranking: ReferenceRanking) -> Iterator[CodeAccuracy]:
    head = single_vectors(pack)
    codec = TaskCodec.open(pack, task)
    metric = single_metric(pack.manifest, task)
    queries = Embeddings(vectors, "float32", head.dimensions, pack.manifest.space(task), metric=metric)
    for precision in PRECISIONS:
        if is_low_bit(precision) and not (metric.has_low_bits and fills_bytes(precision, head.dimensions)):
            continue
        documents = codec.single(queries, precision, head.dimensions)
        for dimensions in _truncations(head, precision):
            truncated = documents.truncate(dimensions)
            loss = ranking.compare(similarity(queries.truncate(dimensions), truncated))
            yield _accuracy(truncated, loss)


def _of_multi(pack: Pack, task: str, vectors: Sequence[Float32], ranking: ReferenceRanking) -> Iterator[CodeAccuracy]:
    head = multi_vectors(pack)
    codec = TaskCodec.open(pack, task)
    queries = joined_multi(vectors, pack.manifest.space(task))
    for precision in PRECISIONS:
        if is_low_bit(precision) and not fills_bytes(precision, head.dimensions):
            continue
        documents = codec.multi(queries, precision)
        for dimensions in _truncations(head, precision):
            truncated = documents.truncate(dimensions)
            yield _accuracy(truncated, ranking.compare(maxsim(queries.truncate(dimensions), truncated)))


def _truncations(head: SingleVectors | MultiVectors, precision: Precision) -> list[int]:
    """Truncations with codes in a precision, descending."""
    dims = reversed(head.truncate_dims)
    return [dimensions for dimensions in dims if not is_low_bit(precision) or fills_bytes(precision, dimensions)]


def _accuracy(documents: Embeddings | MultiEmbeddings, loss: RankingLoss) -> CodeAccuracy:
    return CodeAccuracy(
        truncate_dim=documents.dimensions,
        precision=documents.precision,
        bytes=documents.nbytes // len(documents),
        ranking_loss=loss.loss,
        top_10_overlap=loss.overlap,
    )
