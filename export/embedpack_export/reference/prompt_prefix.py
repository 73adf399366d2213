"""Prompts of a pack as references take them."""

from __future__ import annotations

from embedpack.errors import InputError
from embedpack.pack.folder import Pack
from embedpack.pack.input_recipes import Prompt


def prefix_of(pack: Pack, task: str, prompt_name: str | None) -> str:
    """Text prefix of a prompt; InputError for one with other rules (limit, marker, fill, skip)."""
    prompt = pack.manifest.tasks[task].prompt(prompt_name)
    if prompt != Prompt(prefix=prompt.prefix):
        raise InputError(
            f"{pack.folder}: the prompt {prompt_name!r} of the task {task!r} has rules beside its prefix, which the "
            "reference does not follow; compare the pack with another program"
        )
    return prompt.prefix
