"""Errors of a request, in the form of the API that was called.

Jina has three bodies: of a validation error (`errors`), of an authentication error (flat), of any other error
(`detail` is an object). OpenAI has one.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import msgspec

from embedpack.server.error_schemas import (
    FieldError,
    JinaDetail,
    JinaError,
    JinaFieldErrors,
    JinaKeyError,
    OpenAIDetail,
    OpenAIError,
)

Form = Literal["jina", "openai"]


@dataclass(frozen=True)
class Answer:
    """HTTP status and code of an error in one form."""

    status: int
    code: str | None


class ErrorKind(Enum):
    """Kinds of errors: the answer in Jina's form, the one in OpenAI's, and the type of OpenAI's errors."""

    INVALID = Answer(422, None), Answer(400, None), "invalid_request_error"
    TOO_MANY_TOKENS = (
        Answer(400, "INPUT_TOKEN_LIMIT_EXCEEDED"), Answer(400, "context_length_exceeded"), "invalid_request_error"
    )  # fmt: skip
    UNKNOWN_MODEL = Answer(400, "INPUT_MODEL_NOT_FOUND"), Answer(404, "model_not_found"), "invalid_request_error"
    TOO_LARGE = Answer(413, "INPUT_TOO_LARGE"), Answer(413, "request_too_large"), "invalid_request_error"
    SLOW_BODY = Answer(408, "REQUEST_TIMEOUT"), Answer(408, "request_timeout"), "invalid_request_error"
    MISSING_KEY = Answer(401, "AUTH_MISSING_API_KEY"), Answer(401, "missing_api_key"), "invalid_request_error"
    MALFORMED_KEY = Answer(401, "AUTH_INVALID_FORMAT"), Answer(401, "invalid_api_key"), "invalid_request_error"
    UNKNOWN_KEY = Answer(401, "AUTH_INVALID_API_KEY"), Answer(401, "invalid_api_key"), "invalid_request_error"
    NOT_FOUND = Answer(404, "RESOURCE_NOT_FOUND"), Answer(404, "not_found"), "invalid_request_error"
    WRONG_METHOD = Answer(405, "METHOD_NOT_ALLOWED"), Answer(405, "method_not_allowed"), "invalid_request_error"
    QUEUE_FULL = Answer(429, "RATE_CONCURRENCY_LIMIT_EXCEEDED"), Answer(429, "rate_limit_exceeded"), "rate_limit_error"
    UNAVAILABLE = Answer(503, "SERVICE_UNAVAILABLE"), Answer(503, "service_unavailable"), "server_error"
    DEADLINE = Answer(504, "SERVICE_TIMEOUT"), Answer(504, "timeout"), "server_error"
    INTERNAL = Answer(500, "INTERNAL_ERROR"), Answer(500, "internal_error"), "server_error"

    def __init__(self, jina: Answer, openai: Answer, openai_type: str) -> None:
        self.jina = jina
        self.openai = openai
        self.openai_type = openai_type


AUTHENTICATION = (ErrorKind.MISSING_KEY, ErrorKind.MALFORMED_KEY, ErrorKind.UNKNOWN_KEY)
# Seconds after which a client may try again.
RETRY_SECONDS = {ErrorKind.QUEUE_FULL: 1, ErrorKind.UNAVAILABLE: 5}


def error_schema(kind: ErrorKind, form: Form) -> type[JinaFieldErrors | JinaKeyError | JinaError | OpenAIError]:
    """Schema of the body of an error."""
    if form == "openai":
        return OpenAIError
    if kind.jina.code is None:
        return JinaFieldErrors
    return JinaKeyError if kind in AUTHENTICATION else JinaError


class RequestError(Exception):
    """An error of a request; `field` is the field of the body that it is about, in dots and brackets."""

    def __init__(self, kind: ErrorKind, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field

    def status(self, form: Form) -> int:
        """HTTP status."""
        return (self.kind.jina if form == "jina" else self.kind.openai).status

    def body(self, form: Form, request_id: str) -> bytes:
        """JSON body."""
        return msgspec.json.encode(self._jina(request_id) if form == "jina" else self._openai())

    @property
    def headers(self) -> dict[str, str]:
        """Headers next to the content type."""
        headers = {"retry-after": str(RETRY_SECONDS[self.kind])} if self.kind in RETRY_SECONDS else {}
        return headers | ({"www-authenticate": "Bearer"} if self.kind in AUTHENTICATION else {})

    def _jina(self, request_id: str) -> JinaFieldErrors | JinaKeyError | JinaError:
        code = self.kind.jina.code
        if code is None:
            errors = [FieldError(field=self.field or "", message=self.message)]
            return JinaFieldErrors(detail=self.message, request_id=request_id, errors=errors)
        if self.kind in AUTHENTICATION:
            return JinaKeyError(detail=self.message, request_id=request_id, code=code)
        return JinaError(detail=JinaDetail(message=self.message, request_id=request_id, code=code))

    def _openai(self) -> OpenAIError:
        code = self.kind.openai.code
        detail = OpenAIDetail(message=self.message, type=self.kind.openai_type, param=self.field, code=code)
        return OpenAIError(error=detail)


def invalid(field: str, message: str) -> RequestError:
    """RequestError of a field of the body."""
    return RequestError(ErrorKind.INVALID, f"{field}: {message}", field)


def describe_bug(error: BaseException) -> str:
    """Type and place of an unexpected error, without its message, which could have a text of a request."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {place.filename}:{place.lineno}"
