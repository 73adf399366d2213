"""Comparison of pairs or lists, before calibration: tokens of this export and of transformers' tokenizer.

Texts that spell special tokens are left out: here they are text on purpose.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedpack.engine.graph_scores import open_reader
from embedpack.engine.options import ScoreSettings
from embedpack.engine.score_inputs import ScoreReader
from embedpack.errors import CheckpointError, EmbedpackError, MissingExtraError
from embedpack.pack.score_recipes import PairScores
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup, score_groups
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.torch_reference import TORCH_PACKAGES, library_errors

if TYPE_CHECKING:
    from embedpack_export.reference.torch.listwise import ListReading
    from embedpack_export.reference.torch.pair_reading import PairReading
    from embedpack_export.reference.torch.text_image_pairs import TextPairReading

    OfPairs: TypeAlias = PairReading | TextPairReading
    Reading: TypeAlias = OfPairs | ListReading

logger = logging.getLogger("embedpack")

# Queries whose first documents are compared.
MAX_QUERIES, MAX_DOCUMENTS = 40, 3


def check_score_reading(plan: ExportPlan, scores: ScorePlan, settings: ExportSettings) -> tuple[str, ...]:
    """Compare the tokens of pairs or lists; return sentences about what was not compared, for the report.

    Raises:
        CheckpointError: transformers' tokenizer gives other ids or token types.
    """
    if settings.reference == "fp32 graph":
        return _not_checked("--reference graph leaves it out")
    for package in TORCH_PACKAGES:
        if importlib.util.find_spec(package) is None:
            return _not_checked(str(MissingExtraError("reference", package)))
    for task in plan.tasks:
        try:
            with library_errors(plan.checkpoint.folder):
                reading = _open(plan, scores, task)
        except EmbedpackError as failure:
            return _not_checked(str(failure))
        _compare_all(plan, scores, reading)
    logger.info("tokens of queries and documents are those of transformers")
    return ()


def _open(plan: ExportPlan, scores: ScorePlan, task: str) -> Reading:
    from embedpack_export.reference.torch.listwise import ListReading
    from embedpack_export.reference.torch.pair_reading import PairReading
    from embedpack_export.reference.torch.text_image_pairs import TextPairReading

    if scores.of_lists:
        return ListReading(plan)
    return PairReading(plan, task) if plan.model.fixed_pairs is None else TextPairReading(plan)


def _compare_all(plan: ExportPlan, scores: ScorePlan, reading: Reading) -> None:
    from embedpack_export.reference.torch.listwise import ListReading

    reader = open_reader(plan.folder, scores.recipe, plan.processor)
    if not isinstance(reading, ListReading):
        assert isinstance(scores.recipe, PairScores)
        for number, pair in enumerate(_pairs(plan, reading, with_long=scores.recipe.cut == "longest")):
            _compare(plan, reader, reading, number, pair)
        return
    for number, group in enumerate(_groups(plan)):
        documents = group.texts[:MAX_DOCUMENTS]
        if any(token in text for token in reading.special for text in (group.query, *documents)):
            continue
        here = reader.read(group.query, documents, ScoreSettings())
        with library_errors(plan.checkpoint.folder):
            there = reading.parsed(group.query, documents)
        # Texts over their limit, and lists of several blocks, are cut by rules of the model's code.
        if here.cut or here.query_cut or len(here.inputs) > 1:
            continue
        # Nothing behind the last mark is computed.
        if here.inputs[0].ids.tolist() != there[: len(here.inputs[0].ids)]:
            raise _differs(plan, f"reads list {number}", len(there), len(here.inputs[0].ids))


def _not_checked(reason: str) -> tuple[str, ...]:
    note = "The reading of queries and documents (tokens, length limit) was not compared with transformers"
    logger.warning("%s: %s", note, reason)
    return (f"{note}: {reason}.",)


def _pairs(plan: ExportPlan, reading: OfPairs, *, with_long: bool) -> Iterator[tuple[str, str]]:
    """Pairs of the calibration texts without special tokens; `with_long`: also some in which a text is too long."""
    texts: list[str] = []
    for group in _groups(plan):
        for document in group.texts[:MAX_DOCUMENTS]:
            whole = group.query + document
            too_long = len(reading.read(group.query, document).ids) >= plan.max_tokens
            if not any(token in whole for token in reading.special) and (with_long or not too_long):
                texts += [group.query, document]
                yield group.query, document
    if not texts or not with_long:
        return
    # Hardly longer than the limit: the tokenizers library combines all parts that it cuts off of both texts.
    long, more = texts[0], cycle(texts[1:])
    while len(plan.processor.tokenizer.encode([long], "")[0].ids) < plan.max_tokens:
        long = f"{long} {next(more)}"
    yield from ((texts[0], long), (long, texts[1]), (long, long))


def _groups(plan: ExportPlan) -> list[ScoreGroup]:
    """Evenly spaced groups of the calibration texts."""
    groups = score_groups(plan.calibration)
    rows = np.linspace(0, len(groups) - 1, min(len(groups), MAX_QUERIES)).astype(int).tolist()
    return [groups[row] for row in rows]


def _compare(plan: ExportPlan, reader: ScoreReader, reading: OfPairs, number: int, pair: tuple[str, str]) -> None:
    query, document = pair
    (here,) = reader.read(query, [document], ScoreSettings()).inputs
    with library_errors(plan.checkpoint.folder):
        there = reading.read(query, document)
    if not np.array_equal(here.ids, there.ids):
        what = f"reads pair {number}"
    elif here.types is not None and plan.processor.token_types and not np.array_equal(here.types, there.types):
        what = f"gives other token types to pair {number}"
    else:
        return
    raise _differs(plan, what, len(there.ids), len(here.ids))


def _differs(plan: ExportPlan, what: str, there: int, here: int) -> CheckpointError:
    return CheckpointError(
        f"{plan.checkpoint.folder}: transformers {what} otherwise than this export ({there} and {here} tokens); report "
        "it, or leave this comparison out with --reference graph"
    )
