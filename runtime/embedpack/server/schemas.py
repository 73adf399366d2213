"""Schemas of the bodies of `/v1/embeddings` and `/v1/models`.

Jina's API ignores unknown fields and takes some fields by the names of other vendors; OpenAI's refuses unknown fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """An input as an object with one field: a text, or an image or a PDF in base64 or as a data URI.

    `bytes` and `url` are other names of `image`.
    """

    text: str | None = None
    image: str | None = None
    bytes: str | None = None
    url: str | None = None
    pdf: str | None = None


Inputs = str | Part | list[str | Part | int | list[int]]


class FormBody(msgspec.Struct):
    """The field by which a request in OpenAI's form is recognized."""

    encoding_format: Raw | UnsetType = UNSET


class JinaBody(msgspec.Struct, kw_only=True):
    """Fields of a request in Jina's form; absent and null are the same."""

    model: str
    input: Inputs | None = None
    content: Inputs | None = None
    texts: Inputs | None = None
    task: str | None = None
    task_type: str | None = None
    dimensions: int | None = None
    output_dimensionality: int | None = None
    output_dimension: int | None = None
    input_type: str | None = None
    embedding_type: str | list[str] | None = None
    embedding_types: str | list[str] | None = None
    encoding_type: str | list[str] | None = None
    encoding_format: str | None = None
    truncate: bool | None = None
    truncation: bool | None = None
    normalized: bool | None = None
    late_chunking: bool | None = None
    return_multivector: bool | None = None
    return_tokenized_input: bool | None = None


class OpenAIBody(JinaBody, kw_only=True, forbid_unknown_fields=True):
    """Fields of a request in OpenAI's form: `user` is ignored, as there; the fields of Jina's form may be added."""

    user: str | None = None


class Embedding(msgspec.Struct, kw_only=True):
    """A vector: numbers, or little-endian float32 that is encoded in base64 straight from the array's memory."""

    object: str = "embedding"
    index: int
    embedding: Any


class MultiEmbedding(msgspec.Struct, kw_only=True):
    """A multi-vector: the values of each of its vectors as in `Embedding`."""

    object: str = "embeddings"
    index: int
    embeddings: list[Any]


class Usage(msgspec.Struct, kw_only=True):
    """Tokens that the model read, prompts and special tokens included."""

    total_tokens: int
    prompt_tokens: int


class EmbeddingsAnswer(msgspec.Struct, kw_only=True):
    """Answer of `/v1/embeddings`."""

    model: str
    object: str = "list"
    usage: Usage
    data: Sequence[Embedding | MultiEmbedding]


class Model(msgspec.Struct, kw_only=True):
    """A pack in the answer of `/v1/models`: fields of OpenAI and of Jina, then our own."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "embedpack"
    name: str
    context_length: int
    input_modalities: list[str]
    output_modalities: list[str]
    quantization: list[str]
    tasks: list[str]
    dimensions: list[int]


class ModelsAnswer(msgspec.Struct, kw_only=True):
    """Answer of `/v1/models`."""

    object: str = "list"
    data: list[Model]
