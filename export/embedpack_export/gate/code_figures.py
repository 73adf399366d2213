"""What truncation and low-bit codes cost beside the weights format."""

from __future__ import annotations

from collections.abc import Iterator

from embedpack import Embeddings, similarity
from embedpack.pack.folder import Pack
from embedpack.pack.task_codec import TaskCodec
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codes import PRECISIONS, Float32, Precision, is_low_bit
from embedpack_export.gate.figures import CodeFigures
from embedpack_export.gate.self_retrieval import ReferenceRanking


def code_figures(pack: Pack, task: str, vectors: Float32, ranking: ReferenceRanking) -> Iterator[CodeFigures]:
    """Every truncation in every precision: the variant's float32 queries against codes of its vectors."""
    manifest = pack.manifest
    codec = TaskCodec.open(pack, task)
    queries = Embeddings(vectors, "float32", manifest.dimensions, manifest.space(task))
    for precision in PRECISIONS:
        if is_low_bit(precision) and not fills_bytes(precision, manifest.dimensions):
            continue
        documents = codec.single(queries, precision, manifest.dimensions)
        for dimensions in reversed(manifest.truncate_dims):
            if not is_low_bit(precision) or fills_bytes(precision, dimensions):
                yield _figures(queries.truncate(dimensions), documents.truncate(dimensions), ranking)


def _figures(queries: Embeddings, documents: Embeddings, ranking: ReferenceRanking) -> CodeFigures:
    loss = ranking.compare(similarity(queries, documents))
    precision: Precision = documents.precision
    return CodeFigures(
        truncate_dim=documents.dimensions,
        precision=precision,
        bytes=documents.nbytes // len(documents),
        ranking_loss=loss.loss,
        top_10_overlap=loss.overlap,
    )
