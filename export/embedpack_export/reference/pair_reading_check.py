"""Comparison of pairs, before calibration: token ids and types of this export and of transformers' tokenizer.

Pairs that spell special tokens are left out: here they are text on purpose.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairReader
from embedpack.errors import CheckpointError, EmbedpackError, MissingExtraError
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import score_groups
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.torch_reference import TORCH_PACKAGES, library_errors

if TYPE_CHECKING:
    from embedpack_export.reference.torch.pair_reading import PairReading

logger = logging.getLogger("embedpack")

# Queries whose first documents are compared.
MAX_QUERIES, MAX_DOCUMENTS = 40, 3


def check_pair_reading(plan: ExportPlan, scores: ScorePlan, settings: ExportSettings) -> tuple[str, ...]:
    """Compare the tokens of pairs; return sentences about what was not compared, for the report.

    Raises:
        CheckpointError: transformers' tokenizer gives other ids or token types.
    """
    if settings.reference == "fp32 graph":
        return _not_checked("--reference graph leaves it out")
    for package in TORCH_PACKAGES:
        if importlib.util.find_spec(package) is None:
            return _not_checked(str(MissingExtraError("reference", package)))
    reader = PairReader(plan.folder, scores.pairs, plan.processor.tokenizer)
    for task in plan.tasks:
        try:
            with library_errors(plan.checkpoint.folder):
                reading = _open(plan, task)
        except EmbedpackError as failure:
            return _not_checked(str(failure))
        for number, pair in enumerate(_pairs(plan, reading, with_long=scores.pairs.cut == "longest")):
            _compare(plan, reader, reading, number, pair)
    logger.info("tokens of pairs are those of transformers")
    return ()


def _open(plan: ExportPlan, task: str) -> PairReading:
    from embedpack_export.reference.torch.pair_reading import PairReading

    return PairReading(plan, task)


def _not_checked(reason: str) -> tuple[str, ...]:
    note = "The reading of pairs (tokens, token types, length limit) was not compared with transformers"
    logger.warning("%s: %s", note, reason)
    return (f"{note}: {reason}.",)


def _pairs(plan: ExportPlan, reading: PairReading, *, with_long: bool) -> Iterator[tuple[str, str]]:
    """Pairs of the calibration texts without special tokens; `with_long`: also some in which a text is too long."""
    groups = score_groups(plan.calibration)
    texts: list[str] = []
    for row in np.linspace(0, len(groups) - 1, min(len(groups), MAX_QUERIES)).astype(int).tolist():
        for document in groups[row].documents[:MAX_DOCUMENTS]:
            whole = groups[row].query + document
            too_long = len(reading.read(groups[row].query, document).ids) >= plan.max_tokens
            if not any(token in whole for token in reading.special) and (with_long or not too_long):
                texts += [groups[row].query, document]
                yield groups[row].query, document
    if not texts or not with_long:
        return
    # Hardly longer than the limit: the tokenizers library combines all parts that it cuts off of both texts.
    long, more = texts[0], cycle(texts[1:])
    while len(plan.processor.tokenizer.encode([long], "")[0].ids) < plan.max_tokens:
        long = f"{long} {next(more)}"
    yield from ((texts[0], long), (long, texts[1]), (long, long))


def _compare(plan: ExportPlan, reader: PairReader, reading: PairReading, number: int, pair: tuple[str, str]) -> None:
    query, document = pair
    (here,) = reader.read(query, [document], ScoreSettings()).inputs
    with library_errors(plan.checkpoint.folder):
        there = reading.read(query, document)
    if not np.array_equal(here.ids, there.ids):
        what = "reads"
    elif here.types is not None and plan.processor.token_types and not np.array_equal(here.types, there.types):
        what = "gives other token types to"
    else:
        return
    raise CheckpointError(
        f"{plan.checkpoint.folder}: transformers {what} pair {number} otherwise than this export ({len(there.ids)} and "
        f"{len(here.ids)} tokens); report it, or leave this comparison out with --reference graph"
    )
