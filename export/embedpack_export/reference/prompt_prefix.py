"""Prompts of models that take text prefixes alone."""

from __future__ import annotations

from embedpack.errors import InputError
from embedpack.inputs.prompt_rules import PromptOrPrefix, as_prompt
from embedpack.pack.input_recipes import Prompt


def prefix_of(prompt: PromptOrPrefix) -> str:
    """Text prefix of a prompt; InputError for one with other rules (limit, marker, fill, skip)."""
    known = as_prompt(prompt)
    if known != Prompt(prefix=known.prefix):
        raise InputError(
            "the torch reference of this family takes text prefixes alone, and the prompt has a limit, a marker, a "
            "fill or skipped tokens; compare the pack with its fp32 graph"
        )
    return known.prefix
