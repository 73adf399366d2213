"""Comparison of token ids, marks and skipped tokens of a model for multi-vectors with its own library's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.inputs.processor import ModelInput
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.multi_vector_config import DOCUMENT, QUERY

if TYPE_CHECKING:
    from embedpack_export.reference.torch.multi_vector_reading import MultiVectorReading
    from embedpack_export.reference.torch.prompted_ids import PromptedIds


def check_sides(plan: ExportPlan, task: str, reading: MultiVectorReading, texts: Iterable[str]) -> int:
    """Compare texts as queries and as documents; returns their number.

    Raises:
        CheckpointError: the library has other ids, attends to other tokens, or keeps other vectors.
    """
    count = 0
    for number, text in enumerate(texts):
        for side in (QUERY, DOCUMENT):
            (here,) = plan.processor.process(plan.processor.items([text]), plan.tasks[task].prompts[side])
            difference = _difference(plan, here, reading.read(text, side))
            if difference is not None:
                raise CheckpointError(
                    f"{plan.checkpoint.folder}: {reading.library} reads text {number} as a {side} otherwise than this "
                    f"export: {difference}; report it, or leave this comparison out with --reference graph"
                )
        count += 1
    return count


def _difference(plan: ExportPlan, here: ModelInput, there: PromptedIds) -> str | None:
    if not np.array_equal(here.ids, there.ids):
        return f"its ids are {there.ids.tolist()} there and {here.ids.tolist()} here"
    attended = len(here.ids) - here.unattended
    if attended != there.attended:
        return f"{there.attended} of {len(here.ids)} tokens are attended to there, {attended} here"
    # PyLate skips unknown tokens for words that are none, sentence-transformers keeps them.
    known = here.ids != plan.texts.tokens.unknown
    kept = np.ones(len(here.ids), np.bool_) if here.skipped is None else ~here.skipped
    if not np.array_equal(kept[known], there.kept[known]):
        return f"{there.kept.sum()} of {len(here.ids)} vectors are kept there, {kept.sum()} here"
    return None
