"""Tasks of an export, each with its adapter and prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from embedpack.errors import CheckpointError, unknown
from embedpack.pack.prompts import prompt_name
from embedpack_export.families.model import Model, Prompts
from embedpack_export.planning.settings import BASE_TASK
from embedpack_export.sources.adapted_model import check_adapted_model
from embedpack_export.sources.peft_adapter import PeftAdapter, read_adapter
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

T = TypeVar("T")

# Files of the pack are named after tasks.
TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TaskPlan:
    """Adapter and prompts of a task."""

    adapter: PeftAdapter | None  # adapter; None: the backbone alone
    prompts: Mapping[str, str]  # text prefixes by prompt name
    default_prompt_name: str | None  # prompt of inputs without a prompt name; None: no prefix

    def prompt(self, wanted: str | None) -> str:
        """Text prefix of a prompt; `embedpack.pack.prompts.prompt_name` has the rules for the name `wanted`."""
        return self.prompts.get(prompt_name(self, self.default_prompt_name, wanted), "")


def plan_tasks(
    model: Model,
    adapters: Mapping[str, Path],
    names: tuple[str, ...],
    config: SentenceTransformersConfig,
    by_task: Mapping[str, SentenceTransformersConfig],
) -> dict[str, TaskPlan]:
    """Plan the tasks: those of `adapters`, else those whose adapters come with the checkpoint, else a single one.

    `names` are the tasks to keep, all if empty, or the name of the task of a checkpoint without adapters. `config` is
    sentence-transformers' configuration of the checkpoint, `by_task` that of each folder in `adapters`.

    Raises:
        CheckpointError: a task has no usable name, adapter or default prompt, or is unknown.
    """
    if adapters:
        tasks = {}
        for task, folder in adapters.items():
            prompts = _prompts(model, task, by_task[task] if by_task[task].prompts else config)
            tasks[task] = _task(task, read_adapter(folder, task), prompts)
            check_adapted_model(folder)
        return _selected(names, tasks)
    if model.adapters is not None:
        selected = _selected(names, {task: None for task in model.prompts if task})
        return {task: _task_of_checkpoint(model, task) for task in selected}
    if len(names) > 1:
        raise CheckpointError(
            f"tasks {', '.join(names)}: the checkpoint has no adapters, so it is one task; name only that"
        )
    task = names[0] if names else BASE_TASK
    return {task: _task(task, None, _prompts(model, task, config))}


def _prompts(model: Model, task: str, config: SentenceTransformersConfig) -> Prompts:
    """Prompts of the files, else of the family."""
    of_family = None if config.prompts else model.prompts.get(task, model.prompts.get(""))
    return of_family or Prompts(config.prompts, config.default_prompt_name)


def _task_of_checkpoint(model: Model, task: str) -> TaskPlan:
    """A task whose adapter comes with the checkpoint."""
    assert model.adapters is not None
    adapter = read_adapter(model.adapters, task)
    unchanged = sorted(model.adapted - set(map(model.rules.normal, adapter.updates)))
    if unchanged:
        raise CheckpointError(
            f"{adapter.folder}: the adapter of {task!r} changes {len(adapter.updates)} modules, not all "
            f"{len(model.adapted)}; {unchanged[0]} is missing: is the file complete?"
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


def _selected(names: tuple[str, ...], tasks: Mapping[str, T]) -> dict[str, T]:
    """The tasks of these names; all if there are none."""
    for task in names:
        if task not in tasks:
            raise CheckpointError(unknown("task", task, tasks))
    return {task: plan for task, plan in tasks.items() if not names or task in names}
