"""Answers of `/v1/embeddings` as JSON."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np

from embedpack.server.jobs import JobResult
from embedpack.server.schemas import Embedding, EmbeddingsAnswer, MultiEmbedding, Usage
from embedpack.server.vectors import SeveralFormats, VectorFormat

# Numbers that are written at a time, some 2 ms: the event loop serves other requests between the parts of an answer.
PART_VALUES = 32_768


async def encode_answer(model: str, result: JobResult, form: VectorFormat | SeveralFormats, *, multi: bool) -> bytes:
    """JSON of the answer to a call."""
    usage = Usage(total_tokens=result.tokens, prompt_tokens=result.tokens)
    head = msgspec.json.encode(EmbeddingsAnswer(model=model, usage=usage, data=[])).removesuffix(b"]}")
    rows = max(1, PART_VALUES // result.values[0].size)
    parts = [_rows(result, form, range(0, min(rows, len(result.values))), multi=multi)]
    for start in range(rows, len(result.values), rows):
        await asyncio.sleep(0)
        parts.append(_rows(result, form, range(start, min(start + rows, len(result.values))), multi=multi))
    return b"".join([head, b",".join(parts), b"]}"])


def _rows(result: JobResult, form: VectorFormat | SeveralFormats, rows: range, *, multi: bool) -> bytes:
    """JSON of some elements of `data`, without the brackets around them."""
    vectors = [result.values[row] for row in rows]
    if multi:
        elements = [
            MultiEmbedding(index=row, embeddings=form.rows(each)) for row, each in zip(rows, vectors, strict=True)
        ]
        return msgspec.json.encode(elements)[1:-1]
    values = form.rows(np.stack(vectors))
    return msgspec.json.encode(
        [Embedding(index=row, embedding=value) for row, value in zip(rows, values, strict=True)]
    )[1:-1]
