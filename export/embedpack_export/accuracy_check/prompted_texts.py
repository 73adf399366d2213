"""Texts of the accuracy check under their prompts, and their vectors from the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.reference.protocol import Reference


@dataclass(frozen=True)
class PromptedText:
    """A text and its prompt."""

    prompt: PromptOrPrefix
    text: str


def reference_covers(
    reference: Reference, task: str | None, texts: Sequence[PromptedText], pooling: Pooling | None = None
) -> bool:
    """True if the reference has vectors of all texts."""
    return all(
        reference.covers(task, [texts[row].text for row in rows], prompt, pooling)
        for prompt, rows in _rows_by_prompt(texts).items()
    )


def reference_single(
    reference: Reference, task: str | None, texts: Sequence[PromptedText], pooling: Pooling | None = None
) -> Float32:
    """Single vectors of the reference, [texts, dimensions]; errors as those of the reference."""
    vectors: dict[int, Float32] = {}
    for prompt, rows in _rows_by_prompt(texts).items():
        found = reference.single(task, [texts[row].text for row in rows], prompt, pooling)
        vectors.update(zip(rows, found, strict=True))
    return np.stack([vectors[row] for row in range(len(texts))])


def reference_multi(reference: Reference, task: str | None, texts: Sequence[PromptedText]) -> list[Float32]:
    """Multi-vectors of the reference, for each text [tokens, dimensions]; errors as those of the reference."""
    vectors: dict[int, Float32] = {}
    for prompt, rows in _rows_by_prompt(texts).items():
        vectors.update(zip(rows, reference.multi(task, [texts[row].text for row in rows], prompt), strict=True))
    return [vectors[row] for row in range(len(texts))]


def _rows_by_prompt(texts: Sequence[PromptedText]) -> Mapping[PromptOrPrefix, list[int]]:
    rows: dict[PromptOrPrefix, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text.prompt, []).append(row)
    return rows
