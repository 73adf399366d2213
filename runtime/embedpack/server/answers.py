"""Answers of `/v1/embeddings` as JSON."""

from __future__ import annotations

import msgspec
import numpy as np

from embedpack.server.jobs import JobResult
from embedpack.server.schemas import Embedding, EmbeddingsAnswer, MultiEmbedding, Usage
from embedpack.server.vectors import VectorFormat


def encode_answer(model: str, result: JobResult, form: VectorFormat, *, multi: bool) -> bytes:
    """JSON of the answer to a call."""
    data: list[Embedding] | list[MultiEmbedding]
    if multi:
        data = [MultiEmbedding(index=index, embeddings=form.rows(each)) for index, each in enumerate(result.vectors)]
    else:
        rows = form.rows(np.stack(result.vectors))
        data = [Embedding(index=index, embedding=row) for index, row in enumerate(rows)]
    usage = Usage(total_tokens=result.tokens, prompt_tokens=result.tokens)
    return msgspec.json.encode(EmbeddingsAnswer(model=model, usage=usage, data=data))
