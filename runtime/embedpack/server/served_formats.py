"""Formats of the vectors of a call, as the pack and its metric allow."""

from __future__ import annotations

from embedpack.errors import InputError, OptionError, unknown
from embedpack.pack.heads import single_metric
from embedpack.pack.manifest import MultiVectors, SingleVectors
from embedpack.server.request_errors import invalid
from embedpack.server.requests import EmbeddingsCall
from embedpack.server.schemas import EncodingType
from embedpack.server.served_packs import ServedPack
from embedpack.server.vectors import PRECISIONS, SeveralFormats, VectorFormat
from embedpack.vectors.codes import code_width
from embedpack.vectors.metric import UNIT, Metric


def vector_format(served: ServedPack, call: EmbeddingsCall, task: str) -> VectorFormat | SeveralFormats:
    """Format of the vectors of a call; RequestError if the pack has no such dimensions, or no multi-vectors."""
    if isinstance(call.encoding, tuple):
        return SeveralFormats({encoding: _format(served, call, task, encoding) for encoding in call.encoding})
    return _format(served, call, task, call.encoding)


def _format(served: ServedPack, call: EmbeddingsCall, task: str, encoding: EncodingType) -> VectorFormat:
    if call.multi:
        _check_metric(call, UNIT, encoding)
        return _multi_format(served, call, task, encoding)
    head, codes, codebook = served.manifest.single, served.manifest.codes(task).single, served.codebooks[task].single
    if head is None or codes is None or codebook is None:
        raise invalid("return_multivector", f"{served.name} has no single vectors; set it to true")
    dimensions = _dimensions(call, head, encoding)
    metric = single_metric(served.manifest, task)
    _check_metric(call, metric, encoding)
    unit = metric.similarity == "cosine" if call.normalized is None else call.normalized
    return VectorFormat(encoding, dimensions, codes.int8_scale, codebook, metric, unit, call.late_chunking)


def _multi_format(served: ServedPack, call: EmbeddingsCall, task: str, encoding: EncodingType) -> VectorFormat:
    head, codes, codebook = served.manifest.multi, served.manifest.codes(task).multi, served.codebooks[task].multi
    if head is None or codes is None or codebook is None:
        raise invalid("return_multivector", f"{served.name} has no multi-vectors; leave it out")
    return VectorFormat(encoding, _dimensions(call, head, encoding), codes.int8_scale, codebook)


def _dimensions(call: EmbeddingsCall, head: SingleVectors | MultiVectors, encoding: EncodingType) -> int:
    """Dimensions of the vectors of a call; RequestError if the model was not trained for them."""
    dimensions = head.dimensions if call.dimensions is None else call.dimensions
    if dimensions not in head.truncate_dims:
        raise invalid("dimensions", unknown("dimensions", dimensions, head.truncate_dims))
    _check_width(encoding, dimensions)
    return dimensions


def _check_metric(call: EmbeddingsCall, metric: Metric, encoding: EncodingType) -> None:
    """Raise RequestError for an encoding, or for lengths, that the vectors of a pack do not have."""
    if metric.normalized and call.normalized is False:
        raise invalid("normalized", "the vectors of this model have length 1; leave it out, or pass true")
    try:
        metric.check_precision(PRECISIONS[encoding])
    except OptionError as cause:
        raise invalid("embedding_type", str(cause)) from cause


def _check_width(encoding: EncodingType, dimensions: int) -> None:
    try:
        code_width(PRECISIONS[encoding], dimensions)
    except InputError as cause:
        raise invalid("dimensions", str(cause)) from cause
