"""Bodies of `/v1/rerank` as checked calls."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.inputs.items import is_blank, text_problem
from embedpack.server.rank_schemas import Document, RankBody
from embedpack.server.rank_work import RankTexts
from embedpack.server.request_errors import invalid
from embedpack.server.request_items import decoded
from embedpack.server.requests import decode, one_of
from embedpack.server.settings import Limits


@dataclass(frozen=True)
class RankCall:
    """A checked call; the pack checks `task` and the instruction. `top_n` None: all documents."""

    model: str
    texts: RankTexts
    task: str | None
    top_n: int | None
    return_documents: bool


def check_rank_call(body: bytes, limits: Limits) -> RankCall:
    """Check the fields of a body; RequestError if one cannot be used."""
    fields = decode(body, RankBody)
    _refuse_unsupported(fields)
    if not 1 <= len(fields.documents) <= limits.items:
        raise invalid("documents", f"{len(fields.documents)} documents; pass 1 to {limits.items}")
    images = sum(isinstance(each, Document) and each.image is not None for each in fields.documents)
    if images > limits.images:
        raise invalid("documents", f"{images} images; at most {limits.images} are taken, send several requests")
    truncate = one_of(fields, "truncate", "truncation")
    texts = RankTexts(
        query=_text(fields.query, "query"),
        documents=[_document(each, f"documents[{number}]") for number, each in enumerate(fields.documents)],
        instruction=None if fields.instruction is None else _text(fields.instruction, "instruction"),
        truncate=truncate is None or truncate,
    )
    top_n = one_of(fields, "top_n", "top_k")
    return RankCall(fields.model, texts, fields.task, top_n, return_documents=fields.return_documents is not False)


def _refuse_unsupported(fields: RankBody) -> None:
    for name in ("max_doc_length", "max_tokens_per_doc"):
        if getattr(fields, name) is not None:
            raise invalid(name, "not supported, as the pack has its own limit; leave it out")
    if fields.return_embeddings:
        raise invalid("return_embeddings", "not supported by this server; leave it out")


def _document(value: str | Document, field: str) -> str | bytes:
    """A text, or the content of an image, which the pack may refuse."""
    if isinstance(value, Document) and value.image is not None and value.text is None:
        return decoded(value.image, f"{field}.image", "image")
    return _text(value, field)


def _text(value: str | Document, field: str) -> str:
    if isinstance(value, Document):
        if value.text is None or value.image is not None:
            raise invalid(field, "pass a text, or an object with the field text; images are not scored")
        value = value.text
    problem = "is empty; leave it out" if is_blank(value) else text_problem(value)
    if problem is not None:
        raise invalid(field, f"the text {problem}")
    return value
