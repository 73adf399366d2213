"""Schemas of errors: three bodies of Jina's API, and that of OpenAI's."""

from __future__ import annotations

import msgspec


class FieldError(msgspec.Struct, kw_only=True):
    """A field that cannot be used, in dots and brackets; empty: the whole body."""

    field: str
    message: str
    type: str = "value_error"
    input: None = None


class JinaFieldErrors(msgspec.Struct, kw_only=True):
    """Jina's error of a field."""

    detail: str
    request_id: str
    errors: list[FieldError]


class JinaKeyError(msgspec.Struct, kw_only=True):
    """Jina's error of a key."""

    detail: str
    request_id: str
    code: str


class JinaDetail(msgspec.Struct, kw_only=True):
    """Message and code of an error."""

    message: str
    request_id: str
    code: str


class JinaError(msgspec.Struct, kw_only=True):
    """Jina's error of any other kind."""

    detail: JinaDetail


class OpenAIDetail(msgspec.Struct, kw_only=True):
    """Message, type, field and code of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct, kw_only=True):
    """OpenAI's error."""

    error: OpenAIDetail
