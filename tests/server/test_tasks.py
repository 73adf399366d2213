"""Names of tasks: those of the hosted API on packs with other names."""

from __future__ import annotations

import pytest

from embedpack.pack.input_recipes import Prompt
from embedpack.pack.manifest import Task
from embedpack.server.request_errors import RequestError
from embedpack.server.tasks import choose_task, task_names


def task(default: str | None = None, **prompts: str) -> Task:
    structured = {name: Prompt(prefix=prefix) for name, prefix in prompts.items()}
    return Task(space="any", prompts=structured, default_prompt_name=default, adapter=None)


V4 = {"retrieval": task(query="Query: ", passage="Passage: "), "code": task(query="Q: ", passage="P: "),
      "text-matching": task("query", query="Query: ")}  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "wanted", "expected"),
    [
        (V4, "retrieval.query", ("retrieval", "Query: ")),
        (V4, "retrieval.passage", ("retrieval", "Passage: ")),
        (V4, "code.query", ("code", "Q: ")),
        (V4, "text-matching", ("text-matching", "Query: ")),
        (V4, None, ("text-matching", "Query: ")),
        (V4, "retrieval", ("retrieval", "")),
        ({"default": task(query="q: ", document="d: ")}, "retrieval.passage", ("default", "d: ")),
        ({"default": task()}, "retrieval.query", ("default", "")),
        ({"default": task("query", query="q: ")}, None, ("default", "q: ")),
        ({"clustering": task(), "retrieval": task()}, "separation", ("clustering", "")),
        # A pack may name its tasks as the hosted API does.
        (
            {"retrieval.query": task("query", query="q: "), "code": task()},
            "retrieval.query",
            ("retrieval.query", "q: "),
        ),
    ],
)
def test_names_choose_task_and_prompt(tasks: dict[str, Task], wanted: str | None, expected: tuple[str, str]) -> None:
    found = choose_task(task_names(tasks), wanted, next(iter(tasks)) if len(tasks) == 1 else None)
    assert (found.task, found.prompt.prefix) == expected


@pytest.mark.parametrize(
    ("tasks", "wanted", "side", "expected"),
    [
        (V4, "code", "passage", ("code", "P: ")),
        (V4, "code.query", "query", ("code", "Q: ")),
        (V4, None, "query", ("retrieval", "Query: ")),
        ({"default": task(query="q: ", document="d: ")}, None, "passage", ("default", "d: ")),
        ({"search": task(query="q: ", document="d: ")}, None, "query", ("search", "q: ")),
    ],
)
def test_input_types_choose_the_side(
    tasks: dict[str, Task], wanted: str | None, side: str, expected: tuple[str, str]
) -> None:
    found = choose_task(task_names(tasks), wanted, next(iter(tasks)) if len(tasks) == 1 else None, side)
    assert (found.task, found.prompt.prefix) == expected


@pytest.mark.parametrize(
    ("wanted", "message"), [("code.query", "contradicts the task code.query"), ("cod", "has no task cod.passage")]
)
def test_input_types_that_cannot_be_used(wanted: str, message: str) -> None:
    with pytest.raises(RequestError, match=f"input_type: .*{message}"):
        choose_task(task_names(V4), wanted, None, "passage")


@pytest.mark.parametrize("wanted", ["retrieval.document", "classification", "", "default.query"])
def test_unknown_names_are_refused_with_the_known_ones(wanted: str) -> None:
    with pytest.raises(RequestError, match=r"known: retrieval, code, text-matching, retrieval\.query"):
        choose_task(task_names(V4), wanted, None)


def test_a_task_is_needed_where_no_one_is_the_default() -> None:
    tasks = {"retrieval": task(), "code": task()}
    with pytest.raises(RequestError, match="task: missing; this model has: retrieval, code"):
        choose_task(task_names(tasks), None, None)
