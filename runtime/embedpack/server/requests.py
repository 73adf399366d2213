"""BodyMemoryLimit of `/v1/embeddings` as checked calls."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from embedpack.errors import unknown
from embedpack.inputs.items import Image, Item, Text, is_blank, text_problem
from embedpack.server.request_errors import ErrorKind, Form, RequestError, invalid
from embedpack.server.schemas import FormBody, JinaBody, OpenAIBody, Part
from embedpack.server.settings import Limits

EncodingType = Literal["float", "base64", "binary", "ubinary", "int8"]
# A client that addresses images by plain strings sends data URIs.
DATA_URI = "data:image/"
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class EmbeddingsCall:
    """A checked call; the pack checks `task`, `dimensions` and `normalized`.

    `multi`: multi-vectors are asked for; `late_chunking`: the inputs are the chunks of one document.
    """

    items: list[Item]
    task: str | None
    dimensions: int | None
    encoding: EncodingType
    truncate: bool
    multi: bool
    late_chunking: bool
    normalized: bool | None  # vectors of length 1, or with the lengths of the model; None: as the model is compared

    @property
    def images(self) -> bool:
        """True if an input is an image."""
        return any(isinstance(item, Image) for item in self.items)


def form_of(body: bytes) -> Form:
    """Form of a body: OpenAI's if it has `encoding_format`; RequestError if it is not a JSON object."""
    try:
        return "jina" if msgspec.json.decode(body, type=FormBody).encoding_format is msgspec.UNSET else "openai"
    except JSON_ERRORS as cause:
        raise _unreadable(cause) from cause


def decode_body(body: bytes, form: Form) -> JinaBody:
    """Fields of a body; RequestError if one is missing, has another type, or is not supported."""
    try:
        fields = msgspec.json.decode(body, type=JinaBody if form == "jina" else OpenAIBody)
    except msgspec.ValidationError as cause:
        message, _, path = str(cause).partition(" - at `$")
        field = path.rstrip("`").removeprefix(".")
        raise RequestError(ErrorKind.INVALID, f"{field}: {message}" if field else message, field or None) from cause
    except JSON_ERRORS as cause:
        raise _unreadable(cause) from cause
    _refuse_unsupported(fields)
    return fields


def check_call(fields: JinaBody, limits: Limits, *, data_uris: bool) -> EmbeddingsCall:
    """Check inputs and options; RequestError if one cannot be used, or there are too many.

    `data_uris`: strings that are data URIs of images are images.
    """
    inputs = _one_of(fields, "input", "content", "texts")
    if inputs is None:
        raise invalid("input", "missing; pass a text, or a list of texts")
    parts = inputs if isinstance(inputs, list) else [inputs]
    _check_number(parts, limits)
    items = [_item(part, number, data_uris=data_uris) for number, part in enumerate(parts)]
    images = sum(isinstance(item, Image) for item in items)
    if images > limits.images:
        raise invalid("input", f"{images} images; at most {limits.images} are taken, send several requests")
    if images and fields.late_chunking:
        raise invalid("late_chunking", "documents have texts only, no images; leave it out")
    dimensions = _one_of(fields, "dimensions", "output_dimensionality", "output_dimension")
    return EmbeddingsCall(
        items=items,
        task=_one_of(fields, "task", "task_type"),
        dimensions=dimensions,
        encoding=_encoding(fields),
        truncate=bool(_one_of(fields, "truncate", "truncation")),
        multi=bool(fields.return_multivector),
        late_chunking=bool(fields.late_chunking),
        normalized=fields.normalized,
    )


def _unreadable(cause: Exception) -> RequestError:
    return RequestError(ErrorKind.INVALID, f"the body is no JSON object that can be read: {cause}")


def _one_of(fields: JinaBody, *names: str) -> Any:
    """Value of a field that has several names; RequestError if two of them have different values."""
    given = [name for name in names if getattr(fields, name) is not None]
    if not given:
        return None
    value = getattr(fields, given[0])
    for name in given[1:]:
        if getattr(fields, name) != value:
            raise invalid(name, f"differs from {given[0]}, which means the same; pass one of them")
    return value


def _encoding(fields: JinaBody) -> EncodingType:
    value = _one_of(fields, "embedding_type", "embedding_types", "encoding_type", "encoding_format")
    if value is None:
        return "float"
    for known in get_args(EncodingType):
        if value == known:
            return known
    raise invalid("embedding_type", unknown("embedding_type", value, get_args(EncodingType)))


def _refuse_unsupported(fields: JinaBody) -> None:
    if fields.return_tokenized_input:
        raise invalid("return_tokenized_input", "not supported by this server; leave it out")
    if fields.late_chunking and fields.return_multivector:
        raise invalid("late_chunking", "chunks have single vectors; leave out return_multivector")


def _check_number(parts: Sequence[object], limits: Limits) -> None:
    if not parts:
        raise invalid("input", "the list is empty; pass at least one text")
    if len(parts) > limits.items:
        raise invalid("input", f"{len(parts)} inputs; at most {limits.items} are taken, send several requests")


def _item(part: str | Part | int | list[int], number: int, *, data_uris: bool) -> Item:
    field = f"input[{number}]"
    if isinstance(part, int | list):
        raise invalid(field, "token ids are not taken, as each model has its own; pass the text")
    if isinstance(part, str):
        return Image(number, _image(part, field)) if data_uris and part.startswith(DATA_URI) else _text(part, number)
    if (part.text is None) == (part.image is None):
        raise invalid(field, "pass either text or image")
    if part.image is not None:
        return Image(number, _image(part.image, f"{field}.image"))
    assert part.text is not None
    return _text(part.text, number)


def _text(text: str, number: int) -> Text:
    if is_blank(text):
        raise invalid(f"input[{number}]", "the text is empty; leave it out")
    problem = text_problem(text)
    if problem is not None:
        raise invalid(f"input[{number}]", f"the text {problem}")
    return Text(number, text)


def _image(content: str, field: str) -> bytes:
    """Bytes of an image in base64; nothing is fetched."""
    if content.startswith(("http://", "https://")):
        raise invalid(field, "this server fetches nothing from addresses; pass the image in base64")
    if content.startswith("data:"):
        head, comma, content = content.partition(",")
        if not comma or not head.endswith(";base64"):
            raise invalid(field, "a data URI of an image is: data:image/png;base64,...")
    try:
        return binascii.a2b_base64(content, strict_mode=True)
    except (binascii.Error, ValueError) as cause:  # ValueError: not ASCII
        raise invalid(field, f"the image is not base64: {cause}") from cause
