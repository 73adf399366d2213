"""Parser of the options --prompt [TASK:]NAME=TEXT and --default-prompt [TASK:]NAME."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.errors import OptionError
from embedpack_export.planning.prompt_options import GivenDefault, GivenPrompt, PromptOptions


def parse_prompts(prompts: Sequence[str], defaults: Sequence[str]) -> PromptOptions:
    """Parse the values of both options.

    Raises:
        OptionError: a value has another form, or a prompt is not UTF-8.
    """
    return PromptOptions(tuple(map(_prompt, prompts)), tuple(GivenDefault(*_task_and_name(each)) for each in defaults))


def _prompt(value: str) -> GivenPrompt:
    names, separator, prefix = value.partition("=")
    task, name = _task_and_name(names)
    if not separator or not name:
        raise OptionError(f'--prompt {value}: expected NAME=TEXT or TASK:NAME=TEXT, e.g. query="query: "')
    try:
        prefix.encode()
    except UnicodeEncodeError as cause:
        raise OptionError(f"--prompt {names}=...: the text is not UTF-8") from cause
    return GivenPrompt(task, name, prefix)


def _task_and_name(value: str) -> tuple[str | None, str]:
    """Names of a task, if there is one, and of a prompt; no name of a task has a colon."""
    task, separator, name = value.partition(":")
    return (task, name) if separator else (None, value)
