"""Schemas of `/v1/rerank`: Jina's fields, those of Cohere that mean the same, and `task` and `instruction`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from embedpack.server.schemas import ModelName, described, synonym


class Document(msgspec.Struct):
    """A document as an object; other fields are ignored."""

    text: Annotated[str | None, described("A text.")] = None
    image: Annotated[str | None, described("An image in base64, where the model scores images.")] = None


_DOCUMENTS: dict[str, Any] = {"minItems": 1}
_Count = Annotated[int, Meta(ge=1)]


class RankBody(msgspec.Struct, kw_only=True):
    """Request for scores. Absent and null are the same; unknown fields are ignored."""

    model: ModelName
    query: Annotated[str | Document, described("A text.", "where is my car")]
    documents: Annotated[
        list[str | Document],
        described("Texts.", ["The library closes at six.", "The red car stands in the garage."], **_DOCUMENTS),
    ]
    task: Annotated[str | None, described("One of the model's tasks; default: the model's own.")] = None
    instruction: Annotated[str | None, described("What the query asks for, of models that take an instruction.")] = None
    top_n: Annotated[_Count | None, described("Number of results; default: all documents.")] = None
    top_k: Annotated[_Count | None, synonym("top_n")] = None
    return_documents: Annotated[
        bool | None, described("True, the default: results have the text of their document.")
    ] = None
    truncate: Annotated[
        bool | None, described("True, the default: texts over the limit lose their end; false: they are refused.")
    ] = None
    truncation: Annotated[bool | None, synonym("truncate")] = None
    max_doc_length: Annotated[int | None, described("Refused: the pack has its own limit.")] = None
    max_tokens_per_doc: Annotated[int | None, synonym("max_doc_length")] = None
    return_embeddings: Annotated[bool | None, described("True is refused.")] = None


class RankedText(msgspec.Struct):
    """Text of a document as it was sent."""

    text: str


class RankResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A document: its position in the request, and its score; higher is better."""

    index: int
    relevance_score: float
    document: RankedText | None = None


class RankUsage(msgspec.Struct):
    """Tokens that the model read, prompts and special tokens included."""

    total_tokens: int


class RankAnswer(msgspec.Struct, kw_only=True):
    """The best documents, best first, those of equal scores by their index."""

    model: str
    object: str = "list"
    usage: RankUsage
    results: list[RankResult]
