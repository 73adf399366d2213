"""Requests that schemathesis makes of `/openapi.json`: answers have the statuses and schemas that it names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from embedpack.server.openapi import OPERATIONS, Operation
from tests.helpers.server import Running

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'embedpack[clients]'")

# Packs that compute the bodies of an operation.
MODELS = {"/v1/embeddings": "vectors", "/v1/rerank": "pairs"}
POSTS = [operation for operation in OPERATIONS if operation.method == "post"]
# Fields whose values depend on the model, that are refused, or that have several names.
LEFT_OUT = (
    "task", "task_type", "instruction", "max_doc_length", "max_tokens_per_doc", "content", "texts", "dimensions",
    "output_dimension", "output_dimensionality", "embedding_types", "encoding_type", "encoding_format", "top_k",
)  # fmt: skip
# Inputs of every second body.
INPUTS: dict[str, Any] = {
    "/v1/embeddings": {"input": "a cat"},
    "/v1/rerank": {"query": "a cat", "documents": ["a dog"]},
}
GETS = [operation for operation in OPERATIONS if operation.method == "get"]
ONCE = settings(max_examples=5, suppress_health_check=list(HealthCheck))
OFTEN = settings(max_examples=30, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def api(kinds: Running) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", kinds.app)


def requests(api: Any, operation: Operation, mode: str) -> Any:
    return api[operation.path][operation.method].as_strategy(generation_mode=schemathesis.GenerationMode(mode))


@pytest.mark.parametrize("operation", POSTS, ids=lambda each: each.name)
def test_bodies_of_the_schema_are_answered_as_it_says(api: Any, operation: Operation) -> None:
    statuses: Counter[int] = Counter()

    @OFTEN
    @given(requests(api, operation, "positive"))
    def run(case: Any) -> None:
        # Bodies that the tiny packs can compute, else almost all are refused.
        case.body = {name: value for name, value in case.body.items() if name not in LEFT_OUT}
        case.body |= {"model": MODELS[operation.path]} | (INPUTS[operation.path] if statuses.total() % 2 else {})
        response = case.call()
        statuses[response.status_code] += 1
        # Of values that fit the schema, the model refuses some: other dimensions, blank texts.
        case.validate_response(response, excluded_checks=[schemathesis.checks.positive_data_acceptance])

    run()
    assert statuses[200] > 0, statuses


@pytest.mark.parametrize("operation", POSTS, ids=lambda each: each.name)
def test_bodies_against_the_schema_are_refused(api: Any, operation: Operation) -> None:
    @OFTEN
    @given(requests(api, operation, "negative"))
    def run(case: Any) -> None:
        case.call_and_validate()

    run()


@pytest.mark.parametrize("operation", GETS, ids=lambda each: each.name)
def test_paths_without_a_body(api: Any, operation: Operation) -> None:
    @ONCE
    @given(requests(api, operation, "positive"))
    def run(case: Any) -> None:
        case.call_and_validate()

    run()
