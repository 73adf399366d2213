"""Float32 vectors of a task to codes, without running a graph again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from embedpack.pack.codebooks import Codebooks, open_codebooks
from embedpack.pack.folder import Pack
from embedpack.pack.manifest import Space, VectorCodes
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import Precision, is_low_bit, quantize, truncate
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.multi_embeddings import MultiEmbeddings


@dataclass(frozen=True, eq=False)
class TaskCodec:
    """The int8 scales and codebooks of a task's space; codes are those that `Embedder` returns for the same inputs."""

    space: Space
    codebooks: Codebooks

    @classmethod
    def open(cls, pack: Pack, task: str) -> TaskCodec:
        """Open the codec of a task; PackError as of `open_codebooks`."""
        return cls(pack.manifest.codes(task), open_codebooks(pack, task))

    def single(self, vectors: Embeddings, precision: Precision, dimensions: int) -> Embeddings:
        """Codes of single vectors (float32, full dimensions), truncated to `dimensions`; InputError as `quantize`."""
        codebook = self.codebooks.single if is_low_bit(precision) else None
        by = _quantizer(self.space.single, precision, codebook)
        # Truncation makes float16 of float32: rounding twice would give other values.
        metric = vectors.metric
        codes = vectors.codes if by is None else quantize(metric.of_codes(vectors.codes, precision), precision, by)
        codes = truncate(codes, precision, dimensions, normalized=metric.normalized)
        return replace(vectors, codes=codes, precision=precision, dimensions=dimensions, codebook=codebook)

    def multi(self, vectors: MultiEmbeddings, precision: Precision) -> MultiEmbeddings:
        """Codes of multi-vectors (float32); InputError as `quantize`."""
        codebook = self.codebooks.multi if is_low_bit(precision) else None
        by = _quantizer(self.space.multi, precision, codebook)
        codes = quantize(vectors.codes, precision, by)
        return replace(vectors, codes=codes, precision=precision, codebook=codebook)


def _quantizer(codes: VectorCodes | None, precision: Precision, codebook: Codebook | None) -> float | Codebook | None:
    """Scale or codebook of a precision; None: it needs none."""
    assert codes is not None, precision
    return codes.int8_scale if precision == "int8" else codebook
