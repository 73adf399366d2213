"""Names of tasks as the hosted API spells them: `retrieval.query`, `code.passage`, `text-matching`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedpack.errors import unknown
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.manifest import Task
from embedpack.pack.prompts import document_prompt, query_prompt
from embedpack.server.request_errors import invalid

# Task of an export without adapters; the names of a search choose its prompts.
DEFAULT_TASK = "default"
SEARCH = "retrieval"
# Names of one task in different models; clients send one of them to every model.
SYNONYMS = {"separation": "clustering", "clustering": "separation"}
# Tasks with these suffixes are one side of a search.
SUFFIXES = ("query", "passage")
# Suffixes of the hosted API by the ends of prompt names of tasks with many uses, such as `nl2code_document`.
SIDES = {"query": "query", "document": "passage", "passage": "passage"}
# Tasks of calls that name none, as in the hosted API, if the pack has no default; the first that it has.
UNNAMED = ("text-matching", "nl2code.query")


@dataclass(frozen=True)
class TaskPrompt:
    """A task of a pack, and the prompt of a call."""

    task: str
    prompt: Prompt


def task_names(tasks: Mapping[str, Task]) -> dict[str, TaskPrompt]:
    """Names that requests may give, with their task and prompt.

    A task that is no side itself has `.query` and `.passage`, and its bare name with the default prompt; a prompt such
    as `nl2code_query` has its name with a point.
    """
    names = {name: TaskPrompt(name, task.prompt(None)) for name, task in tasks.items()}
    for name, task in tasks.items():
        if name.rpartition(".")[2] in SUFFIXES:
            continue
        stem = SEARCH if name == DEFAULT_TASK else name
        for suffix, prompt in (("query", query_prompt(task)), ("passage", document_prompt(task))):
            names.setdefault(f"{stem}.{suffix}", TaskPrompt(name, task.prompt(prompt)))
    for name, task in tasks.items():
        for prompt in task.prompts:
            stem, _, side = prompt.rpartition("_")
            if stem and side in SIDES:
                names.setdefault(f"{stem}.{SIDES[side]}", TaskPrompt(name, task.prompt(prompt)))
    for name, other in SYNONYMS.items():
        if name in names:
            names.setdefault(other, names[name])
    return names


def choose_task(
    names: Mapping[str, TaskPrompt], wanted: str | None, unnamed: str | None, side: str | None = None
) -> TaskPrompt:
    """Task and prompt of a request, whose task is `unnamed` if it names none; `side` is one of the suffixes.

    RequestError if the pack has no such task, or the request and the pack name none.
    """
    if side is not None:
        wanted = _name_of_side(wanted or unnamed or SEARCH, side)
        if wanted not in names:
            raise invalid("input_type", f"this model has no task {wanted}; it has: {', '.join(names)}")
    if wanted is None:
        name = unnamed or next((name for name in UNNAMED if name in names), None)
        if name is None:
            raise invalid("task", f"missing; this model has: {', '.join(names)}")
        return names[name]
    if wanted not in names:
        raise invalid("task", unknown("task", wanted, names))
    return names[wanted]


def _name_of_side(task: str, side: str) -> str:
    suffix = task.rpartition(".")[2]
    if suffix in SUFFIXES and suffix != side:
        raise invalid("input_type", f"contradicts the task {task}; leave one of them out")
    stem = SEARCH if task == DEFAULT_TASK else task.removesuffix(f".{side}")
    return f"{stem}.{side}"
