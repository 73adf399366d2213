"""Schemas of the bodies of requests and answers, for the endpoints and for `/openapi.json`.

Jina's API ignores unknown fields and takes some fields by the names of other vendors; OpenAI's refuses unknown fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

EncodingType = Literal["float", "base64", "binary", "ubinary", "int8"]
Side = Literal["query", "passage"]
# Sides of a search by the values of `input_type`.
SIDES: Mapping[str, Side] = {"query": "query", "document": "passage"}


def described(description: str, *examples: object, **schema: Any) -> Meta:
    """Description of a field, examples, and more of its JSON schema."""
    return Meta(description=description, examples=list(examples) or None, extra_json_schema=schema or None)


def synonym(name: str) -> Meta:
    """Description of a field that means the same as another."""
    return Meta(description=f"Another name of `{name}`.")


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """An input as an object with one field."""

    text: Annotated[str | None, described("A text.")] = None
    image: Annotated[str | None, described("An image in base64, or as a data URI.")] = None
    bytes: Annotated[str | None, synonym("image")] = None
    url: Annotated[str | None, Meta(description="Another name of `image`; nothing is fetched from addresses.")] = None
    pdf: Annotated[str | None, described("A PDF in base64, or as a data URI, alone: its pages are the inputs.")] = None


# Token ids are decoded for the message that refuses them.
Inputs = str | Part | list[str | Part | int | list[int]]
_SINGLE: list[dict[str, Any]] = [{"type": "string"}, {"$ref": "#/components/schemas/Part"}]
_LIST = {"type": "array", "minItems": 1, "items": {"anyOf": _SINGLE}}
_INPUTS: dict[str, Any] = {"anyOf": [*_SINGLE, _LIST, {"type": "null"}]}
# Values are checked by the endpoint, whose messages name the nearest known one.
_EncodingName = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(EncodingType))})]
_Encoding = _EncodingName | list[_EncodingName] | None
ModelName = Annotated[str, described("Name of a pack of `/v1/models`, with any owner before it.", "minilm")]


class FormBody(msgspec.Struct):
    """The field by which a request in OpenAI's form is recognized."""

    encoding_format: Raw | UnsetType = UNSET


class JinaBody(msgspec.Struct, kw_only=True):
    """Request for vectors in Jina's form. Absent and null are the same; unknown fields are ignored."""

    model: ModelName
    input: Annotated[
        Inputs | None,
        described("A text, or a list of texts, images or one PDF.", ["where did I park", "a red car"], **_INPUTS),
    ] = None
    content: Annotated[Inputs | None, described("Another name of `input`.", **_INPUTS)] = None
    texts: Annotated[Inputs | None, described("Another name of `input`.", **_INPUTS)] = None
    task: Annotated[str | None, described("One of the model's tasks; default: the model's own.", "retrieval.query")] = (
        None
    )
    task_type: Annotated[str | None, synonym("task")] = None
    input_type: Annotated[str | None, described("That side of the task, or of `retrieval`.", enum=[*SIDES, None])] = (
        None
    )
    dimensions: Annotated[int | None, described("Leading dimensions to keep, one of the model's.")] = None
    output_dimensionality: Annotated[int | None, synonym("dimensions")] = None
    output_dimension: Annotated[int | None, synonym("dimensions")] = None
    embedding_type: Annotated[
        _Encoding, described("Form of a vector; of several, each vector is an object. base64: little-endian float32.")
    ] = None
    embedding_types: Annotated[_Encoding, synonym("embedding_type")] = None
    encoding_type: Annotated[_Encoding, synonym("embedding_type")] = None
    encoding_format: Annotated[
        _EncodingName | None, described("Another name of `embedding_type`; a body that has it is in OpenAI's form.")
    ] = None
    truncate: Annotated[
        bool | None, described("True: texts over the limit lose their end; false, the default: they are refused.")
    ] = None
    truncation: Annotated[bool | None, synonym("truncate")] = None
    normalized: Annotated[
        bool | None, described("True: vectors of length 1; false: of the lengths that the model gives them.")
    ] = None
    late_chunking: Annotated[
        bool | None, described("True: the inputs are the chunks of one document, encoded in its context.")
    ] = None
    return_multivector: Annotated[bool | None, described("True: one vector per token.")] = None
    return_tokenized_input: Annotated[bool | None, described("True is refused.")] = None


class OpenAIBody(JinaBody, kw_only=True, forbid_unknown_fields=True):
    """Request for vectors in OpenAI's form: it has `encoding_format`, and unknown fields are refused."""

    user: Annotated[str | None, described("Has no effect.")] = None


_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
_VALUE: dict[str, Any] = {"anyOf": [_NUMBERS, {"type": "string", "contentEncoding": "base64"}]}
_Vector = Annotated[
    Any,
    Meta(
        description="Numbers, base64 of little-endian float32, or an object of these by type.",
        extra_json_schema={"anyOf": [*_VALUE["anyOf"], {"type": "object", "additionalProperties": _VALUE}]},
    ),
]


class Embedding(msgspec.Struct, kw_only=True, tag_field="object", tag="embedding"):
    """A vector. In base64, msgspec encodes straight from the memory of an array."""

    index: int
    embedding: _Vector


class MultiEmbedding(msgspec.Struct, kw_only=True, tag_field="object", tag="embeddings"):
    """A multi-vector: one vector per token."""

    index: int
    embeddings: list[_Vector]


class Usage(msgspec.Struct, kw_only=True):
    """Tokens that the model read, prompts and special tokens included."""

    total_tokens: int
    prompt_tokens: int


class EmbeddingsAnswer(msgspec.Struct, kw_only=True):
    """Vectors in the order of the inputs."""

    model: str
    object: str = "list"
    usage: Usage
    data: Sequence[Embedding | MultiEmbedding]


class Model(msgspec.Struct, kw_only=True):
    """A pack: fields of OpenAI and of Jina, then our own."""

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
    outputs: Annotated[list[str], described("Of `single` (vectors), `multi` (multi-vectors) and `score` (of pairs).")]


class ModelsAnswer(msgspec.Struct, kw_only=True):
    """All packs of the server."""

    object: str = "list"
    data: list[Model]


class State(msgspec.Struct):
    """State of the server."""

    status: str
