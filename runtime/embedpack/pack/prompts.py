"""Prompts of the two sides of a search: queries and documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

# Names in the order of sentence-transformers' `encode_query` and `encode_document`.
QUERY_NAMES = ("query",)
DOCUMENT_NAMES = ("document", "passage", "corpus")
# Prompt name of inputs without a prefix, also if the task has a default prompt.
NO_PROMPT = ""


class Prompted(Protocol):
    """Anything with prompts: a task of a manifest, a task of an export plan."""

    @property
    def prompts(self) -> Mapping[str, object]:
        """Prompts by name."""


def query_prompt(task: Prompted) -> str:
    """Name of the prompt of queries; NO_PROMPT if the task has none, as in `encode_query` of sentence-transformers."""
    return _first(task, QUERY_NAMES)


def document_prompt(task: Prompted) -> str:
    """Name of the prompt of documents: document, passage or corpus, the first that the task has; else NO_PROMPT.

    The default prompt is not used, as in `encode_document` of sentence-transformers: it may be that of queries.
    """
    return _first(task, DOCUMENT_NAMES)


def prompt_name(task: Prompted, default: str | None, wanted: str | None) -> str:
    """Name of the prompt `wanted` if the task has it, else of the default prompt; NO_PROMPT without both.

    The names of documents stand for each other, and the default prompt stands in for no name of a side: it may be the
    prompt of the other one.
    """
    if wanted == NO_PROMPT or (wanted is not None and wanted in task.prompts):
        return wanted
    if wanted in DOCUMENT_NAMES:
        return document_prompt(task)
    return NO_PROMPT if default is None or wanted in QUERY_NAMES else default


def _first(task: Prompted, names: Sequence[str]) -> str:
    return next((name for name in names if name in task.prompts), NO_PROMPT)
