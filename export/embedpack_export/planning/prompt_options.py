"""Prompts of the caller, besides those of the files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace as replace_field

from embedpack.errors import OptionError, PackError, unknown
from embedpack.inputs.prompt_rules import as_prompt
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.prompts import NO_PROMPT

if TYPE_CHECKING:
    from embedpack_export.planning.tasks import TaskPlan

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class GivenPrompt:
    """A prompt of a task; it takes the place of one of the same name in the files."""

    task: str | None  # None: the only task
    name: str
    prefix: str


@dataclass(frozen=True)
class GivenDefault:
    """Prompt of inputs without a prompt name."""

    task: str | None  # None: the only task
    name: str  # NO_PROMPT: no prefix


class _Record(msgspec.Struct, frozen=True):
    """Settings of a manifest that name prompts, by task."""

    prompts: dict[str, dict[str, str]] = {}
    default_prompts: dict[str, str] = {}


@dataclass(frozen=True)
class PromptOptions:
    """Prompts of the caller; empty: those of the files."""

    prompts: tuple[GivenPrompt, ...] = ()
    defaults: tuple[GivenDefault, ...] = ()

    def prefixes(self, task: str) -> Mapping[str, str]:
        """Given prefixes of a task by prompt name."""
        return {given.name: given.prefix for given in self.prompts if given.task in (task, None)}

    def default(self, task: str) -> str | None:
        """Given name of the default prompt of a task; None: that of the files."""
        return next((given.name for given in self.defaults if given.task in (task, None)), None)

    def applied(self, plans: Mapping[str, TaskPlan]) -> dict[str, TaskPlan]:
        """Tasks with these prompts.

        Raises:
            OptionError: a task or a default prompt is unknown, left open, or given twice.
        """
        _check_tasks("--prompt", [(given.task, given.name) for given in self.prompts], plans)
        _check_tasks("--default-prompt", [(given.task, "") for given in self.defaults], plans)
        return {task: self._with_prompts(task, plan) for task, plan in plans.items()}

    def _with_prompts(self, task: str, plan: TaskPlan) -> TaskPlan:
        prefixes, default = self.prefixes(task), self.default(task)
        prompts = dict(plan.prompts)
        for name, prefix in prefixes.items():
            known = as_prompt(prompts.get(name, prefix))
            if known.prefix != prefix:
                logger.warning(
                    "task %r: the prompt %r is %r, of --prompt, in place of %r, of the files of the model",
                    task, name, prefix, known.prefix,
                )  # fmt: skip
            # Its other rules are the model's.
            prompts[name] = prefix if known == Prompt(prefix=known.prefix) else replace_field(known, prefix=prefix)
        if default is None:
            return replace(plan, prompts=prompts)
        if default != NO_PROMPT and default not in prompts:
            raise OptionError(f"--default-prompt: {unknown('prompt', default, prompts)} (task {task!r})")
        return replace(plan, prompts=prompts, default_prompt_name=default or None)

    def record(self, tasks: Iterable[str]) -> dict[str, Any]:
        """Settings for the manifest: names and prefixes by task."""
        given = {task: (dict(self.prefixes(task)), self.default(task)) for task in tasks}
        records = {
            "prompts": {task: prefixes for task, (prefixes, _) in given.items() if prefixes},
            "default_prompts": {task: default for task, (_, default) in given.items() if default is not None},
        }
        return {name: record for name, record in records.items() if record}

    @staticmethod
    def of_record(settings: Mapping[str, Any]) -> PromptOptions:
        """Options from the settings in a manifest; raises PackError if they have another form."""
        try:
            record = msgspec.convert(settings, _Record)
        except msgspec.ValidationError as cause:
            raise PackError(f"pack.json: $.export.settings: {cause}; export the pack again") from cause
        given = [(task, name, prefix) for task, found in record.prompts.items() for name, prefix in found.items()]
        return PromptOptions(
            tuple(GivenPrompt(*each) for each in given),
            tuple(GivenDefault(task, name) for task, name in record.default_prompts.items()),
        )


PROMPTS_OF_FILES = PromptOptions()


def _check_tasks(option: str, given: Iterable[tuple[str | None, str]], plans: Mapping[str, TaskPlan]) -> None:
    """Refuse an unknown task, an open choice of one, and a second value of one prompt."""
    seen: set[tuple[str, str]] = set()
    for task, name in given:
        if task is None and len(plans) > 1:
            raise OptionError(f"{option} {name}: there are several tasks, {', '.join(plans)}; name one, TASK:NAME")
        if task is not None and task not in plans:
            raise OptionError(f"{option}: {unknown('task', task, plans)}")
        key = (task or next(iter(plans)), name)
        if key in seen:
            raise OptionError(f"{option} is given twice for {':'.join(filter(None, key))}")
        seen.add(key)
