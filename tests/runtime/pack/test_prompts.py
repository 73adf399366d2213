"""Prompts of queries and documents: the names of sentence-transformers, never the other side's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.pack.prompts import DOCUMENT_NAMES, NO_PROMPT, QUERY_NAMES, document_prompt, prompt_name, query_prompt

NAMES = ("query", "document", "passage", "corpus", "clustering")


@dataclass(frozen=True)
class Prompts:
    prompts: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("names", "query", "document"),
    [
        ((), NO_PROMPT, NO_PROMPT),
        (("query",), "query", NO_PROMPT),
        (("passage",), NO_PROMPT, "passage"),
        (("query", "corpus"), "query", "corpus"),
        (("corpus", "passage", "query"), "query", "passage"),
        (("corpus", "passage", "document"), NO_PROMPT, "document"),
        (("clustering",), NO_PROMPT, NO_PROMPT),
    ],
)
def test_names(names: Sequence[str], query: str, document: str) -> None:
    task = Prompts({name: f"{name}: " for name in names})
    assert (query_prompt(task), document_prompt(task)) == (query, document)


@given(st.sets(st.sampled_from(NAMES)), st.data())
def test_no_side_has_the_prompt_of_another_side(names: set[str], data: st.DataObject) -> None:
    task = Prompts({name: f"{name}: " for name in names})
    default = data.draw(st.sampled_from([None, *sorted(names)]))
    for own, side in ((QUERY_NAMES, query_prompt(task)), (DOCUMENT_NAMES, document_prompt(task))):
        for wanted in own:
            chosen = prompt_name(task, default, wanted)
            assert chosen == (wanted if wanted in names else side)
            assert chosen in (NO_PROMPT, *own)


@pytest.mark.parametrize(
    ("default", "wanted", "expected"),
    [
        ("query", None, "query"),
        (None, None, NO_PROMPT),
        ("query", NO_PROMPT, NO_PROMPT),
        ("query", "clustering", "clustering"),
        ("query", "poem", "query"),
        (None, "poem", NO_PROMPT),
        ("query", "passage", NO_PROMPT),
    ],
)
def test_default(default: str | None, wanted: str | None, expected: str) -> None:
    task = Prompts({"query": "q: ", "clustering": "c: "})
    assert prompt_name(task, default, wanted) == expected
