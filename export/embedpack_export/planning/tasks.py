"""Tasks of an export, each with its adapter and prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import CheckpointError, unknown
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.prompts import prompt_name
from embedpack_export.families.model import Model, TaskFacts
from embedpack_export.planning.settings import BASE_TASK
from embedpack_export.sources.adapted_model import check_adapted_model
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.peft_adapter import read_adapter
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

# Files of the pack are named after tasks.
TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TaskNames:
    """Names of tasks in the settings of an export."""

    wanted: tuple[str, ...] = ()  # tasks to export, all if empty; without adapters, the name of the only task
    base: str | None = None  # name of the task without an adapter, beside those that have one


ALL_TASKS = TaskNames()


@dataclass(frozen=True)
class CheckpointAndModel:
    """A checkpoint, and the model as its family reads it."""

    checkpoint: Checkpoint
    model: Model


@dataclass(frozen=True)
class TaskPlan:
    """Adapter and prompts of a task."""

    adapter: Adapter | None  # adapter; None: the backbone alone
    prompts: Mapping[str, PromptOrPrefix]  # by name
    default_prompt_name: str | None  # prompt of inputs without a prompt name; None: no prefix
    space: str  # space of its vectors, which several tasks may share

    def prompt(self, wanted: str | None) -> PromptOrPrefix:
        """A prompt; `embedpack.pack.prompts.prompt_name` has the rules for the name `wanted`."""
        return self.prompts.get(prompt_name(self, self.default_prompt_name, wanted), "")


def plan_tasks(
    source: CheckpointAndModel,
    adapters: Mapping[str, Path],
    names: TaskNames,
    config: SentenceTransformersConfig,
    by_task: Mapping[str, SentenceTransformersConfig],
) -> dict[str, TaskPlan]:
    """Plan the tasks: those of `adapters`, else those whose adapters come with the checkpoint, else a single one.

    A task without an adapter stands beside them if `names`, or the family, has a name for it. `config` is
    sentence-transformers' configuration of the checkpoint, `by_task` that of each folder in `adapters`.

    Raises:
        CheckpointError: a task has no usable name, adapter or default prompt, or is unknown.
    """
    model = source.model
    _check_fixed_adapter(source, adapters, names)
    if not adapters and model.adapters is None:
        task = _only_task(names)
        return {task: _task(task, None, _facts(model, task, config))}
    own = () if adapters or model.adapters is None else model.adapters.tasks
    base = names.base if adapters else names.base or model.base_task
    adapted = (*adapters, *own)
    if base in adapted:
        raise CheckpointError(f"task {base!r}: it has an adapter; give the task without an adapter another name")
    tasks = {}
    for task in _selected(names.wanted, (*adapted, *([] if base is None else [base]))):
        if task in adapters:
            facts = _facts(model, task, by_task[task] if by_task[task].prompts else config)
            adapter = read_adapter(adapters[task], task, with_heads=model.heads.score is not None)
            tasks[task] = _task(task, adapter, facts)
            check_adapted_model(adapters[task])
        elif task in own:
            tasks[task] = _task_of_checkpoint(source, task, config)
        else:
            tasks[task] = _task(task, None, model.tasks.get(task) or _facts(model, task, config))
    return tasks


def _check_fixed_adapter(source: CheckpointAndModel, adapters: Mapping[str, Path], names: TaskNames) -> None:
    if source.model.has_fixed_adapter and (adapters or names.base is not None):
        option = "--adapter" if adapters else "--base-task"
        raise CheckpointError(
            f"{option} is of no use: the adapter in {source.checkpoint.folder} is a part of the model, and vectors "
            "without it cannot be compared with those of its images; leave it out"
        )


def _only_task(names: TaskNames) -> str:
    """Name of the task of a checkpoint without adapters."""
    wanted = tuple(dict.fromkeys((*names.wanted, *([] if names.base is None else [names.base]))))
    if len(wanted) > 1:
        raise CheckpointError(
            f"tasks {', '.join(wanted)}: the checkpoint has no adapters, so it is one task; name only that"
        )
    return wanted[0] if wanted else BASE_TASK


def _facts(model: Model, task: str, config: SentenceTransformersConfig) -> TaskFacts:
    """Facts of the family, with the prompts of the files if they have any."""
    facts = model.tasks.get(task, model.tasks.get(""))
    if facts is None or config.prompts:
        space = None if facts is None else facts.space
        return TaskFacts(config.prompts, config.default_prompt_name, space)
    return facts


def _task_of_checkpoint(source: CheckpointAndModel, task: str, config: SentenceTransformersConfig) -> TaskPlan:
    """A task whose adapter comes with the checkpoint."""
    model = source.model
    assert model.adapters is not None
    adapter = model.adapters.read(source.checkpoint, task)
    unchanged = sorted(model.adapted - set(map(model.rules.normal, adapter.updates)))
    if unchanged:
        raise CheckpointError(
            f"{adapter.folder}: the adapter of {task!r} changes {len(model.adapted) - len(unchanged)} modules, not all "
            f"{len(model.adapted)}; {unchanged[0]} is missing: is the file complete?"
        )
    return _task(task, adapter, model.tasks.get(task) or _facts(model, task, config))


def _task(task: str, adapter: Adapter | None, facts: TaskFacts) -> TaskPlan:
    if not TASK_NAME.fullmatch(task):
        raise CheckpointError(
            f"task {task!r}: a task is named with letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    default = facts.default_prompt_name
    if default is not None and default not in facts.prompts:
        raise CheckpointError(f"config_sentence_transformers.json: {unknown('prompt', default, facts.prompts)}")
    return TaskPlan(adapter, facts.prompts, default, facts.space or task)


def _selected(wanted: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    """The wanted tasks in the order of those that are known; all if none is wanted."""
    for task in wanted:
        if task not in known:
            raise CheckpointError(unknown("task", task, known))
    return [task for task in known if not wanted or task in wanted]
