"""Which tasks an export has, with which adapter and prompts each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from embedpack.errors import CheckpointError, unknown
from embedpack_export.families import Model, Prompts
from embedpack_export.planning.settings import BASE_TASK, ExportSettings
from embedpack_export.sources.peft_adapter import PeftAdapter, read_adapter
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

T = TypeVar("T")

# Files of the pack are named after tasks.
TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TaskPlan:
    """One task: its adapter (None: the backbone as it is) and its prompts."""

    adapter: PeftAdapter | None
    prompts: Mapping[str, str]
    default_prompt_name: str | None

    def prompt_name(self, wanted: str | None) -> str | None:
        """Name of the prompt `wanted` if the task has it, else of the default prompt; None: no prompt."""
        return wanted if wanted in self.prompts else self.default_prompt_name

    def prompt(self, wanted: str | None) -> str:
        """Text prefix of the prompt that `prompt_name` chooses."""
        name = self.prompt_name(wanted)
        return "" if name is None else self.prompts[name]


def plan_tasks(
    settings: ExportSettings,
    model: Model,
    stated: SentenceTransformersConfig,
    by_task: Mapping[str, SentenceTransformersConfig],
) -> dict[str, TaskPlan]:
    """The tasks: those with an adapter named by hand, else those that the checkpoint brings along, else one.

    Raises:
        CheckpointError: a task has no usable name, adapter or default prompt, or is unknown.
    """
    if settings.adapters:
        tasks = {}
        for task, folder in settings.adapters.items():
            prompts = _prompts(model, task, by_task[task] if by_task[task].prompts else stated)
            tasks[task] = _task(task, read_adapter(folder, task), prompts)
        return _selected(settings, tasks)
    if model.adapters is not None:
        names = _selected(settings, {task: None for task in model.prompts if task})
        return {task: _own(model, task) for task in names}
    if len(settings.tasks) > 1:
        raise CheckpointError(
            f"tasks {', '.join(settings.tasks)}: the checkpoint has no adapters, so it is one task; name only that"
        )
    task = settings.tasks[0] if settings.tasks else BASE_TASK
    return {task: _task(task, None, _prompts(model, task, stated))}


def _prompts(model: Model, task: str, stated: SentenceTransformersConfig) -> Prompts:
    """What the files say, else what the family knows."""
    known = None if stated.prompts else model.prompts.get(task, model.prompts.get(""))
    return known or Prompts(stated.prompts, stated.default_prompt_name)


def _own(model: Model, task: str) -> TaskPlan:
    assert model.adapters is not None
    adapter = read_adapter(model.adapters, task)
    missing = sorted(model.adapted - set(map(model.rules.normal, adapter.updates)))
    if missing:
        raise CheckpointError(
            f"{adapter.folder}: the adapter of {task!r} changes {len(adapter.updates)} modules, not all "
            f"{len(model.adapted)}; {missing[0]} is missing: is the file complete?"
        )
    return _task(task, adapter, model.prompts[task])


def _task(task: str, adapter: PeftAdapter | None, prompts: Prompts) -> TaskPlan:
    if not TASK_NAME.fullmatch(task):
        raise CheckpointError(
            f"task {task!r}: a task is named with letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    if prompts.default is not None and prompts.default not in prompts.prefixes:
        raise CheckpointError(
            f"config_sentence_transformers.json: {unknown('prompt', prompts.default, prompts.prefixes)}"
        )
    return TaskPlan(adapter, prompts.prefixes, prompts.default)


def _selected(settings: ExportSettings, tasks: Mapping[str, T]) -> dict[str, T]:
    """The tasks that were asked for."""
    for task in settings.tasks:
        if task not in tasks:
            raise CheckpointError(unknown("task", task, tasks))
    return {task: item for task, item in tasks.items() if not settings.tasks or task in settings.tasks}
