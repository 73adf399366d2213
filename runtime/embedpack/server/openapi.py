"""The OpenAPI document of a server, from the schemas that its endpoints decode and encode."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from embedpack.server.error_schemas import JinaError, JinaFieldErrors, JinaKeyError, OpenAIError
from embedpack.server.rank_schemas import RankAnswer, RankBody
from embedpack.server.request_errors import ErrorKind, Form, error_schema
from embedpack.server.schemas import EmbeddingsAnswer, JinaBody, Model, ModelsAnswer, OpenAIBody, State

REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"
KEYS = (ErrorKind.MISSING_KEY, ErrorKind.MALFORMED_KEY, ErrorKind.UNKNOWN_KEY)
# Errors of every request that has a body and is computed.
COMPUTED = (
    *KEYS, ErrorKind.INVALID, ErrorKind.TOO_MANY_TOKENS, ErrorKind.UNKNOWN_MODEL, ErrorKind.TOO_LARGE,
    ErrorKind.SLOW_BODY, ErrorKind.QUEUE_FULL, ErrorKind.UNAVAILABLE, ErrorKind.DEADLINE, ErrorKind.INTERNAL,
)  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """A method of a path: schemas of its body by form, of its answers by status, and kinds of its errors."""

    path: str
    method: str
    summary: str
    answers: Mapping[int, type | str]  # a str is the media type of another text
    bodies: Mapping[Form, type] = field(default_factory=dict)
    errors: Iterable[ErrorKind] = ()
    parameters: tuple[str, ...] = ()
    open: bool = False  # needs no key

    @property
    def name(self) -> str:
        """Unique name, e.g. "post-v1-embeddings"."""
        parts = self.path.replace("{", "").replace("}", "").split("/")
        return "-".join([self.method, *filter(None, parts)])


OPERATIONS = (
    Operation(
        "/v1/embeddings", "post", "Vectors of texts, images or the pages of a PDF.",
        {200: EmbeddingsAnswer}, {"jina": JinaBody, "openai": OpenAIBody}, COMPUTED,
    ),
    Operation(
        "/v1/rerank", "post", "Scores of documents for a query, by rerankers and by MaxSim of multi-vectors.",
        {200: RankAnswer}, {"jina": RankBody}, COMPUTED,
    ),
    Operation("/v1/models", "get", "Packs, their tasks, dimensions and limits.", {200: ModelsAnswer}, errors=KEYS),
    Operation(
        "/v1/models/{model}", "get", "One pack.", {200: Model}, errors=(*KEYS, ErrorKind.NOT_FOUND),
        parameters=("model",),
    ),
    Operation("/health", "get", "The process answers.", {200: State}, open=True),
    Operation("/ready", "get", "The packs are loaded, and the engine runs.", {200: State, 503: State}, open=True),
    Operation("/metrics", "get", "Metrics for Prometheus.", {200: "text/plain"}, errors=KEYS),
)  # fmt: skip


def openapi_document() -> bytes:
    """JSON of the document, OpenAPI 3.1."""
    used = [kind for operation in OPERATIONS for kind in (*operation.bodies.values(), *operation.answers.values())]
    structs = [kind for kind in used if isinstance(kind, type)]
    errors = [JinaFieldErrors, JinaKeyError, JinaError, OpenAIError]
    _, components = msgspec.json.schema_components([*structs, *errors], ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "embedpack",
            "version": importlib.metadata.version("embedpack"),
            "description": "Packs over HTTP, in the forms of Jina's and OpenAI's APIs.",
        },
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A key of --api-keys."}},
        },
    }
    return msgspec.json.encode(document)


def _described(operation: Operation) -> dict[str, Any]:
    answers = {
        str(status): {"description": "Done." if status < 300 else "Not now.", "content": _content(kind)}
        for status, kind in operation.answers.items()
    }
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": answers | _errors(operation),
    }
    if operation.bodies:
        described["requestBody"] = {"required": True, "content": _content(*operation.bodies.values())}
    if operation.parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in operation.parameters
        ]
    return described | ({"security": []} if operation.open else {})


def _errors(operation: Operation) -> dict[str, Any]:
    """Error responses by status: the codes, and the schemas in the forms that the operation has."""
    forms: tuple[Form, ...] = tuple(operation.bodies) or ("jina",)
    codes: dict[int, list[str]] = {}
    schemas: dict[int, list[type]] = {}
    for kind in operation.errors:
        for form in forms:
            answer = kind.jina if form == "jina" else kind.openai
            code = answer.code or "a field cannot be used"
            if code not in codes.setdefault(answer.status, []):
                codes[answer.status].append(code)
            # Keys are checked before the body is read, so these errors have one form.
            schema = error_schema(kind, "jina" if kind in KEYS else form)
            if schema not in schemas.setdefault(answer.status, []):
                schemas[answer.status].append(schema)
    return {
        str(status): {"description": ", ".join(codes[status]), "content": _content(*schemas[status])}
        for status in sorted(codes)
    }


def _content(*kinds: type | str) -> dict[str, Any]:
    if isinstance(kinds[0], str):
        return {kinds[0]: {"schema": {"type": "string"}}}
    references = [{"$ref": REFERENCE.format(name=kind.__name__)} for kind in kinds if isinstance(kind, type)]
    return {JSON: {"schema": references[0] if len(references) == 1 else {"anyOf": references}}}
