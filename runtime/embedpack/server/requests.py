"""Bodies of `/v1/embeddings` as checked calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import msgspec

from embedpack.errors import unknown
from embedpack.server.request_errors import ErrorKind, Form, RequestError, invalid
from embedpack.server.request_items import RequestItems, read_items
from embedpack.server.schemas import SIDES, EncodingType, FormBody, JinaBody, OpenAIBody, Side
from embedpack.server.settings import Limits

T = TypeVar("T")
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class EmbeddingsCall:
    """A checked call; the pack checks `task`, `side`, `dimensions` and `normalized`.

    `multi`: multi-vectors are asked for; `late_chunking`: the inputs are the chunks of one document.
    """

    inputs: RequestItems
    task: str | None
    side: Side | None
    dimensions: int | None
    encoding: EncodingType | tuple[EncodingType, ...]  # several: an object for each vector
    truncate: bool
    multi: bool
    late_chunking: bool
    normalized: bool | None  # vectors of length 1, or with the lengths of the model; None: as the model is compared


def form_of(body: bytes) -> Form:
    """Form of a body: OpenAI's if it has `encoding_format`; RequestError if it is not a JSON object."""
    try:
        return "jina" if msgspec.json.decode(body, type=FormBody).encoding_format is msgspec.UNSET else "openai"
    except JSON_ERRORS as cause:
        raise _unreadable(cause) from cause


def decode_body(body: bytes, form: Form) -> JinaBody:
    """Fields of a body; RequestError if one is missing, has another type, or is not supported."""
    fields = decode(body, JinaBody if form == "jina" else OpenAIBody)
    _refuse_unsupported(fields)
    return fields


def decode(body: bytes, schema: type[T]) -> T:
    """Fields of a body; RequestError if one is missing, or has another type."""
    try:
        return msgspec.json.decode(body, type=schema)
    except msgspec.ValidationError as cause:
        message, _, path = str(cause).partition(" - at `$")
        field = path.rstrip("`").removeprefix(".")
        raise RequestError(ErrorKind.INVALID, f"{field}: {message}" if field else message, field or None) from cause
    except JSON_ERRORS as cause:
        raise _unreadable(cause) from cause


def check_call(fields: JinaBody, limits: Limits, *, data_uris: bool, urls: bool = False) -> EmbeddingsCall:
    """Check inputs and options; RequestError if one cannot be used, or there are too many.

    `data_uris`: strings that are data URIs of images are images.
    """
    inputs = one_of(fields, "input", "content", "texts")
    if inputs is None:
        raise invalid("input", "missing; pass a text, or a list of texts")
    items = read_items(inputs, limits, data_uris=data_uris, urls=urls)
    if items.images and fields.late_chunking:
        raise invalid("late_chunking", "documents have texts only, no images; leave it out")
    dimensions = one_of(fields, "dimensions", "output_dimensionality", "output_dimension")
    return EmbeddingsCall(
        inputs=items,
        task=one_of(fields, "task", "task_type"),
        side=_side(fields),
        dimensions=dimensions,
        encoding=_encoding(fields),
        truncate=bool(one_of(fields, "truncate", "truncation")),
        multi=bool(fields.return_multivector),
        late_chunking=bool(fields.late_chunking),
        normalized=fields.normalized,
    )


def _unreadable(cause: Exception) -> RequestError:
    return RequestError(ErrorKind.INVALID, f"the body is no JSON object that can be read: {cause}")


def one_of(fields: msgspec.Struct, *names: str) -> Any:
    """Value of a field that has several names; RequestError if two of them have different values."""
    given = [name for name in names if getattr(fields, name) is not None]
    if not given:
        return None
    value = getattr(fields, given[0])
    for name in given[1:]:
        if getattr(fields, name) != value:
            raise invalid(name, f"differs from {given[0]}, which means the same; pass one of them")
    return value


def _encoding(fields: JinaBody) -> EncodingType | tuple[EncodingType, ...]:
    value = one_of(fields, "embedding_type", "embedding_types", "encoding_type", "encoding_format")
    if value is None:
        return "float"
    if isinstance(value, str):
        return _known(value)
    if not value or len(set(value)) < len(value):
        raise invalid("embedding_type", "the list is empty, or has a type twice; pass each type once")
    return tuple(_known(each) for each in value)


def _known(value: str) -> EncodingType:
    for known in get_args(EncodingType):
        if value == known:
            return known
    raise invalid("embedding_type", unknown("embedding_type", value, get_args(EncodingType)))


def _side(fields: JinaBody) -> Side | None:
    if fields.input_type is None:
        return None
    if fields.input_type not in SIDES:
        raise invalid("input_type", unknown("input_type", fields.input_type, SIDES))
    return SIDES[fields.input_type]


def _refuse_unsupported(fields: JinaBody) -> None:
    if fields.return_tokenized_input:
        raise invalid("return_tokenized_input", "not supported by this server; leave it out")
    if fields.late_chunking and fields.return_multivector:
        raise invalid("late_chunking", "chunks have single vectors; leave out return_multivector")
